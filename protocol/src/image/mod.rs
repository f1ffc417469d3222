//! Images: content as an ordered list of chunks, named by its manifest.
