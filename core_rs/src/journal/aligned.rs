//! Memory that direct I/O accepts: it starts at a block and grows in whole blocks.
//!
//! It is a plain vector with one block of slack; the vector is never grown in place, so its start never moves.

use super::format::BLOCK_BYTES;

/// A block-aligned byte buffer.
pub(super) struct AlignedBuffer {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// A zeroed buffer of at least `bytes`, rounded up to whole blocks.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES);
        let memory = vec![0; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "no aligned start in a buffer with a block of slack");
        Self { memory, start, bytes }
    }

    /// Size in bytes, a multiple of the block.
    pub(super) fn capacity(&self) -> usize {
        self.bytes
    }

    /// All of it.
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.bytes]
    }

    /// All of it, to write to.
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }

    /// Makes room for `bytes`, keeping the first `used` bytes of the content.
    pub(super) fn grow(&mut self, bytes: usize, used: usize) {
        if bytes > self.bytes {
            let mut larger = Self::new(bytes);
            larger.as_mut_slice()[..used].copy_from_slice(&self.as_slice()[..used]);
            *self = larger;
        }
    }
}
