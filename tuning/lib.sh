# shellcheck shell=bash
# What tuning/apply and tuning/undo share. Every change goes through one of the functions here, which
# writes down what was there before, so that undo needs to know nothing else.
#
# The record has a line for each change, fields separated by tabs:
#   value   PATH     OLD               a file of /proc or /sys
#   file    PATH     BACKUP or -       a file of the host; - if there was none
#   feature DEVICE   NAME  on|off      an offload
#   nft     TABLE                      a table that was not there

# For tests: a folder that stands for / where files are installed, and where the record is kept.
root=${TUNING_ROOT:-}
state=${TUNING_STATE:-$root/var/lib/roadstead-tuning}
record=$state/record

write=no

say() { printf '%s\n' "$*"; }

fail() {
    printf 'tuning: %s\n' "$*" >&2
    exit 1
}

# remember KIND FIELD...: before the change, and on disk, so that an interrupted apply can be undone.
remember() {
    (IFS=$'\t' && printf '%s\n' "$*") >>"$record"
    sync "$record"
}

# set_value PATH VALUE: writes a file of /proc or /sys.
set_value() {
    local path=$1 value=$2 old
    if ! [ -e "$path" ]; then
        say "skip     $path: not on this host"
        return
    fi
    old=$(cat "$path" 2>/dev/null) || {
        say "skip     $path: cannot be read"
        return
    }
    if [ "$old" = "$value" ]; then
        say "is       $path = $value"
        return
    fi
    say "set      $path = $value (was $old)"
    [ "$write" = yes ] || return 0
    remember value "$path" "$old"
    if ! printf '%s' "$value" 2>/dev/null >"$path"; then
        say "refused  $path: the kernel does not take it"
    fi
}

# raise_value PATH VALUE: the same, for a number that may be higher already.
raise_value() {
    local path=$1 value=$2 old
    old=$(cat "$path" 2>/dev/null) || old=''
    if [ -n "$old" ] && [ "$old" -ge "$value" ] 2>/dev/null; then
        say "is       $path = $old"
        return
    fi
    set_value "$path" "$value"
}

# put_file SOURCE TARGET: installs a file, keeping what was there.
put_file() {
    local source=$1 target=$root$2 backup=-
    if [ -e "$target" ] && cmp -s "$source" "$target"; then
        say "is       $target"
        return
    fi
    say "install  $target"
    [ "$write" = yes ] || return 0
    if [ -e "$target" ]; then
        backup=$state/backup/$2
        mkdir -p "$(dirname "$backup")"
        cp -a "$target" "$backup"
    fi
    remember file "$target" "$backup"
    mkdir -p "$(dirname "$target")"
    install -m 0644 "$source" "$target"
}

# set_feature DEVICE NAME on|off: an offload, if the device has it.
set_feature() {
    local device=$1 name=$2 value=$3 old
    old=$(ethtool -k "$device" 2>/dev/null | sed -n "s/^[[:space:]]*$name: //p") || old=''
    case $old in
    '' | *fixed*) say "skip     $device $name: ${old:-unknown}" ;;
    "$value"*) say "is       $device $name $value" ;;
    *)
        say "set      $device $name $value (was $old)"
        [ "$write" = yes ] || return 0
        remember feature "$device" "$name" "${old%% *}"
        ethtool -K "$device" "$name" "$value" || say "refused  $device $name"
        ;;
    esac
}

# put_table FILE FAMILY NAME: loads a table of nftables, unless there is one of that name.
put_table() {
    local file=$1 table="$2 $3"
    if ! command -v nft >/dev/null; then
        say "skip     nftables: nft is not installed"
        return
    fi
    # shellcheck disable=SC2086 # family and name are two words
    if nft list table $table >/dev/null 2>&1; then
        say "is       table $table"
        return
    fi
    say "load     $file"
    [ "$write" = yes ] || return 0
    nft -c -f "$file" || fail "$file is not accepted"
    remember nft "$table"
    nft -f "$file"
}

# reload_units: tells a running systemd about unit files.
reload_units() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
}
