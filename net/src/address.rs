//! Socket addresses in the kernel's form.

use std::{
    io, mem,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    ptr,
};

use crate::error::Error;

/// Room for an IPv4 or IPv6 socket address: 28 bytes, against 128 of `sockaddr_storage`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) union Storage {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Default for Storage {
    fn default() -> Self {
        // SAFETY: all bytes zero is a valid sockaddr_in6: plain integers.
        unsafe { mem::zeroed() }
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.decode())
    }
}

impl Storage {
    /// Its size for the kernel.
    pub(crate) const LENGTH: libc::socklen_t = 28;

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        ptr::from_ref(self).cast()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        ptr::from_mut(self).cast()
    }

    /// Reads an address that the kernel wrote as bytes, for example the name of a received datagram.
    pub(crate) fn decode_bytes(bytes: &[u8]) -> Option<SocketAddr> {
        if bytes.len() > mem::size_of::<Self>() {
            return None;
        }
        let mut storage = Self::default();
        // SAFETY: the source has `len` bytes, checked to fit the destination, which is plain data.
        unsafe {
            ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                ptr::from_mut(&mut storage).cast(),
                bytes.len(),
            );
        }
        storage.decode()
    }

    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        // SAFETY: both variants start with the family, and every bit pattern of it is valid.
        let family = libc::c_int::from(unsafe { self.v4.sin_family });
        match family {
            libc::AF_INET => {
                // SAFETY: the family says that it is this one, and it is plain data.
                let v4 = unsafe { self.v4 };
                let ip = v4.sin_addr.s_addr.to_ne_bytes().into();
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = v6.sin6_addr.s6_addr.into();
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// The kernel's form of an address, and how many bytes of it count.
pub(crate) fn encode(address: SocketAddr) -> (Storage, libc::socklen_t) {
    let mut storage = Storage::default();
    match address {
        SocketAddr::V4(v4) => {
            storage.v4 = libc::sockaddr_in {
                sin_family: family(libc::AF_INET),
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            (storage, 16)
        }
        SocketAddr::V6(v6) => {
            storage.v6 = libc::sockaddr_in6 {
                sin6_family: family(libc::AF_INET6),
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            (storage, Storage::LENGTH)
        }
    }
}

fn family(family: libc::c_int) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).expect("families are small numbers")
}

/// The addresses of all interfaces that are up, with port 0.
pub(crate) fn of_interfaces() -> Result<Vec<SocketAddr>, Error> {
    let mut list = ptr::null_mut();
    // SAFETY: the call writes one pointer, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(Error::System {
            call: "getifaddrs",
            source: io::Error::last_os_error(),
        });
    }
    let mut found = Vec::new();
    let mut next: *const libc::ifaddrs = list;
    // SAFETY: the list is as the call made it until it is freed; a null pointer ends it.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let up = libc::c_uint::try_from(libc::IFF_UP).unwrap_or(1);
        if entry.ifa_addr.is_null() || entry.ifa_flags & up == 0 {
            continue;
        }
        // SAFETY: not null, and every address starts with its family.
        let length = match libc::c_int::from(unsafe { (*entry.ifa_addr).sa_family }) {
            libc::AF_INET => mem::size_of::<libc::sockaddr_in>(),
            libc::AF_INET6 => mem::size_of::<libc::sockaddr_in6>(),
            _ => continue,
        };
        // SAFETY: an address of this family has this length.
        let bytes = unsafe { std::slice::from_raw_parts(entry.ifa_addr.cast::<u8>(), length) };
        found.extend(Storage::decode_bytes(bytes));
    }
    // SAFETY: the list came from getifaddrs and is not used again.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_form() {
        for text in [
            "127.0.0.1:1",
            "255.254.253.252:65535",
            "[::1]:443",
            "[fe80::1:2%3]:7",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(encode(address).0.decode(), Some(address), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_address_are_refused() {
        assert_eq!(Storage::decode_bytes(&[0; 28]), None);
        assert_eq!(Storage::decode_bytes(&[2; 64]), None);
        assert_eq!(Storage::default().decode(), None);
    }

    #[test]
    fn loopback_is_an_interface() {
        let found = of_interfaces().unwrap();
        assert!(
            found.iter().any(|address| address.ip().is_loopback()),
            "{found:?}"
        );
    }
}
