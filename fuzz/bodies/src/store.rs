//! Durable state: values and logs read back, and the seam that every engine keeps to.

pub mod log;
pub mod seam;
pub mod values;
