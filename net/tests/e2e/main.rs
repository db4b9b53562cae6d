//! Servers and clients of this crate against each other over loopback, with real sockets and rings.
//! One scenario per file, and each of them with each engine.

/// Every scenario with one engine on both sides.
macro_rules! scenarios {
    ($name:ident, $engine:ty) => {
        #[allow(
            clippy::duplicate_mod,
            reason = "the same scenarios for another engine"
        )]
        #[path = "."]
        mod $name {
            pub(crate) type Engine = $engine;

            mod close;
            mod echo;
            mod flood;
            mod heartbeat;
            mod idle;
            mod oversized;
            mod protocol;
            mod rebind;
            mod restart;
            mod rig;
            mod strays;
            mod windows;
        }
    };
}

scenarios!(quinn, roadstead_net::Quinn);
scenarios!(lean, roadstead_net::Lean);
