//! Pure functions of the kernel programs.
#![cfg_attr(not(test), no_std)]
