//! How a site catches up with the records it missed.
