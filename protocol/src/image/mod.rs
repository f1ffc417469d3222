//! What records are about: images, cut into [`chunker`] pieces, listed by a [`manifest`], carried in an [`encoding`].

pub mod chunker;
pub mod encoding;
pub mod manifest;
pub mod similarity;
