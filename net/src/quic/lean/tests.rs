//! Two engines and a pocket network.
