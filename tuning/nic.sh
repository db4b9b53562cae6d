# shellcheck shell=bash
# Network devices: interrupts, receive and send steering, offloads. Sourced by tuning/apply.
# shellcheck disable=SC2154 # root and say come from tuning/lib.sh

# Devices with hardware behind them that are up.
nic_devices() {
    local path
    for path in "$root"/sys/class/net/*; do
        if [ -e "$path/device" ] && [ "$(cat "$path/operstate")" != down ]; then
            basename "$path"
        fi
    done
}

# mask_of FIRST COUNT: cores FIRST to FIRST+COUNT-1 as the kernel writes sets of cores: hexadecimal words
# of 32, the highest first, with commas.
mask_of() {
    local first=$1 total=$(($1 + $2)) words=() word bit core text=''
    for ((word = 0; word * 32 < total; word++)); do
        words[word]=0
    done
    for ((core = first; core < total; core++)); do
        bit=$((core % 32))
        words[core / 32]=$((words[core / 32] | 1 << bit))
    done
    for ((word = ${#words[@]} - 1; word >= 0; word--)); do
        if [ -z "$text" ]; then
            text=$(printf '%x' "${words[word]}")
        else
            text=$text,$(printf '%08x' "${words[word]}")
        fi
    done
    printf '%s\n' "$text"
}

# The device's interrupts: PCI devices list them, those of virtio belong to the parent.
nic_interrupts() {
    local device=$root/sys/class/net/$1/device folder
    for folder in "$device/msi_irqs" "$device/../msi_irqs"; do
        if [ -d "$folder" ]; then
            find "$folder" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n
            return
        fi
    done
}

nic_apply() {
    local device=$1 cores queues irq core=0 queue index
    cores=$(nproc --all)
    if pgrep -x irqbalance >/dev/null 2>&1; then
        say "skip     $device interrupts: irqbalance runs and would move them again"
    else
        # One interrupt after the other to one core after the other.
        for irq in $(nic_interrupts "$device"); do
            set_value "$root/proc/irq/$irq/smp_affinity_list" "$core"
            core=$(((core + 1) % cores))
        done
    fi
    # RPS: where there are fewer receive queues than cores, packets are handed on to all of them. The flow
    # table of RFS stays off: docs/TUNING.md.
    queues=$(find "$root/sys/class/net/$device/queues" -name 'rx-*' | wc -l)
    if [ "$queues" -lt "$cores" ]; then
        for queue in "$root/sys/class/net/$device/queues"/rx-*; do
            set_mask "$queue/rps_cpus" "$(mask_of 0 "$cores")"
        done
    fi
    # XPS: send queues are dealt out to the cores in equal runs.
    queues=$(find "$root/sys/class/net/$device/queues" -name 'tx-*' | wc -l)
    if [ "$queues" -gt 1 ] && [ "$queues" -le "$cores" ]; then
        index=0
        for queue in $(find "$root/sys/class/net/$device/queues" -name 'tx-*' | sort -V); do
            core=$((index * cores / queues))
            set_mask "$queue/xps_cpus" "$(mask_of "$core" $(((index + 1) * cores / queues - core)))"
            index=$((index + 1))
        done
    fi
    set_feature "$device" generic-receive-offload on
    set_feature "$device" tx-udp-segmentation on
}

# set_mask PATH MASK: a set of cores; the kernel shows it with leading zeros.
set_mask() {
    local path=$1 mask=$2 old
    old=$(cat "$path" 2>/dev/null || true)
    if [ "$(printf '%s' "$old" | sed 's/^[0,]*//')" = "$mask" ]; then
        say "is       $path = $mask"
    else
        set_value "$path" "$mask"
    fi
}
