//! Keys and message authentication.
//!
//! AES-128-CMAC (NIST SP 800-38B, RFC 4493) cut to its first eight bytes proves a message; the keys are derived from a
//! terminal's master key by NIST SP 800-108r1 in counter mode with the same CMAC as its PRF; master keys are kept wrapped under
//! the switch's own key by RFC 3394. What is done with PINs stands in [`crate::pin`].
//!
//! Always true here: a tag is compared in constant time and a mismatch is an error that cannot be overlooked; no key has a
//! `Debug` or `Display` that shows it; the key types wipe themselves when they are dropped.
//!
//! CMAC is written out over the block cipher, because the `cmac` crate copies the key schedule and derives the subkey again for
//! every message. Here both are made once, and a message goes through the cipher in one call.

use std::fmt;

use aes::cipher::consts::U16;
use aes::cipher::{Array, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128Enc, Aes256Enc, Block};
use aes_kw::KwAes256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of an AES block.
const BLOCK_BYTES: usize = 16;

/// AES-CMAC under one key, with the key schedule and both subkeys ready.
pub(crate) struct Cmac<C = Aes128Enc> {
    cipher: C,
    /// K1, for messages that end with a whole block.
    subkey_whole: [u8; BLOCK_BYTES],
    /// K2, for messages whose last block is padded.
    subkey_padded: [u8; BLOCK_BYTES],
}

impl Cmac {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self::of(Aes128Enc::new(&Array::from(*key)))
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Cmac<C> {
    fn of(cipher: C) -> Self {
        let mut zero = Block::default();
        cipher.encrypt_block(&mut zero);
        let whole = double(u128::from_be_bytes(zero.0));
        zero.as_mut_slice().zeroize();
        Self { cipher, subkey_whole: whole.to_be_bytes(), subkey_padded: double(whole).to_be_bytes() }
    }

    #[inline]
    pub(crate) fn compute(&self, message: &[u8]) -> [u8; BLOCK_BYTES] {
        // All blocks but the last; an empty message too has a last block, which is all padding.
        let (head, tail) = message.split_at(message.len().saturating_sub(1) / BLOCK_BYTES * BLOCK_BYTES);
        let (head, _) = head.as_chunks();
        let mut last = [0; BLOCK_BYTES];
        last[..tail.len()].copy_from_slice(tail);
        let subkey = if tail.len() == BLOCK_BYTES {
            &self.subkey_whole
        } else {
            last[tail.len()] = 0x80;
            &self.subkey_padded
        };
        let last = exclusive_or(&last, subkey);
        let mut state = [0; BLOCK_BYTES];
        self.cipher.encrypt_with_backend(Chain { state: &mut state, head, last: &last });
        state
    }
}

impl<C> Drop for Cmac<C> {
    fn drop(&mut self) {
        // The cipher wipes its own schedule.
        self.subkey_whole.zeroize();
        self.subkey_padded.zeroize();
    }
}

impl<C: ZeroizeOnDrop> ZeroizeOnDrop for Cmac<C> {}

/// Multiplication by x in GF(2^128) as RFC 4493 section 2.3 has it, without a branch on the key.
const fn double(value: u128) -> u128 {
    (value << 1) ^ (0x87 * (value >> 127))
}

#[inline]
fn exclusive_or(left: &[u8; BLOCK_BYTES], right: &[u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    std::array::from_fn(|index| left[index] ^ right[index])
}

/// The chain of blocks, run inside the cipher's backend so that it is chosen once a message.
struct Chain<'a> {
    state: &'a mut [u8; BLOCK_BYTES],
    head: &'a [[u8; BLOCK_BYTES]],
    last: &'a [u8; BLOCK_BYTES],
}

impl BlockSizeUser for Chain<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Chain<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "the backend's instructions are only inlined into the function that enables them")]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut state = Block::default();
        for block in self.head {
            state.0 = exclusive_or(&state.0, block);
            backend.encrypt_block((&mut state).into());
        }
        state.0 = exclusive_or(&state.0, self.last);
        backend.encrypt_block((&mut state).into());
        *self.state = state.0;
    }
}

/// NIST SP 800-108r1 section 4.1, counter mode, one block: PRF(key, `00000001` || label || `00` || context || `00000080`).
fn derive<C>(prf: &Cmac<C>, label: &[u8], context: &[u8]) -> [u8; 16]
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>,
{
    let mut input = Vec::with_capacity(48);
    input.extend_from_slice(&1_u32.to_be_bytes());
    input.extend_from_slice(label);
    input.push(0);
    input.extend_from_slice(context);
    input.extend_from_slice(&128_u32.to_be_bytes());
    prf.compute(&input)
}

/// A message's tag is not the one that the key makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MacMismatch;

impl fmt::Display for MacMismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the message authentication code does not match")
    }
}

impl std::error::Error for MacMismatch {}

/// A key that proves messages, ready for use. About 750 bytes: the cipher keeps room for its software schedule.
pub struct MacKey(Cmac);

impl MacKey {
    /// Prepares a key.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Cmac::new(key))
    }

    /// The tag of a message: the first eight bytes of its AES-128-CMAC.
    #[must_use]
    #[inline]
    pub fn tag(&self, message: &[u8]) -> [u8; 8] {
        let code = self.0.compute(message);
        std::array::from_fn(|index| code[index])
    }

    /// Compares a message's tag with `tag` in constant time.
    ///
    /// # Errors
    /// [`MacMismatch`] where they differ.
    #[inline]
    pub fn verify(&self, message: &[u8], tag: &[u8; 8]) -> Result<(), MacMismatch> {
        if bool::from(self.tag(message).ct_eq(tag)) { Ok(()) } else { Err(MacMismatch) }
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MacKey(..)")
    }
}

/// A terminal's master key. It never crosses the wire; every other key of the terminal is derived from it.
#[derive(Clone)]
pub struct MasterKey([u8; 16]);

impl MasterKey {
    /// Takes the key.
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// The key of sign-on messages of the terminal with this DE41.
    #[must_use]
    pub fn sign_on_key(&self, terminal: &[u8; 8]) -> MacKey {
        MacKey::new(&Zeroizing::new(self.sign_on_key_bytes(terminal)))
    }

    /// The MAC key of the session with these nonces.
    #[must_use]
    pub fn session_mac_key(&self, terminal: &[u8; 8], terminal_nonce: &[u8; 8], switch_nonce: &[u8; 8]) -> MacKey {
        MacKey::new(&Zeroizing::new(self.session_mac_key_bytes(terminal, terminal_nonce, switch_nonce)))
    }

    /// The 16 bytes of [`Self::sign_on_key`].
    #[must_use]
    pub fn sign_on_key_bytes(&self, terminal: &[u8; 8]) -> [u8; 16] {
        self.derive(b"SIGN-ON", terminal)
    }

    /// The 16 bytes of [`Self::session_mac_key`].
    #[must_use]
    pub fn session_mac_key_bytes(&self, terminal: &[u8; 8], terminal_nonce: &[u8; 8], switch_nonce: &[u8; 8]) -> [u8; 16] {
        self.derive(b"MAC", [*terminal, *terminal_nonce, *switch_nonce].as_flattened())
    }

    /// The PIN key of the session with these nonces.
    #[must_use]
    pub fn session_pin_key_bytes(&self, terminal: &[u8; 8], terminal_nonce: &[u8; 8], switch_nonce: &[u8; 8]) -> [u8; 16] {
        self.derive(b"PIN", [*terminal, *terminal_nonce, *switch_nonce].as_flattened())
    }

    fn derive(&self, label: &[u8], context: &[u8]) -> [u8; 16] {
        derive(&Cmac::new(&self.0), label, context)
    }
}

impl PartialEq for MasterKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MasterKey {}

impl Drop for MasterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for MasterKey {}

impl fmt::Debug for MasterKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MasterKey(..)")
    }
}

/// A wrapped key does not open: it was wrapped under another key, or it was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnwrapError;

impl fmt::Display for UnwrapError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the wrapped key does not open under this key encryption key")
    }
}

impl std::error::Error for UnwrapError {}

/// The switch's own key, AES-256, under which master keys are kept. From it comes the key under which PINs are.
pub struct KeyEncryptionKey {
    wrap: KwAes256,
    pin_verification: Zeroizing<[u8; 16]>,
}

impl KeyEncryptionKey {
    /// Bytes of the key.
    pub const BYTES: usize = 32;

    /// Takes the key.
    #[must_use]
    pub fn new(key: &[u8; Self::BYTES]) -> Self {
        let prf = Cmac::of(Aes256Enc::new(&Array::from(*key)));
        let pin_verification = Zeroizing::new(derive(&prf, b"PIN-VERIFY", b""));
        Self { wrap: KwAes256::new(&Array::from(*key)), pin_verification }
    }

    /// The 16 bytes of the key under which PIN verification values are made: KDF("PIN-VERIFY", no context) with AES-256-CMAC
    /// under this key as its PRF. So PINs need no key file of their own, which could be lost or mixed up.
    ///
    /// This key is asked for one such value, ever, so that of the cipher beneath both uses nothing can be learned through it but
    /// one block, and that block is the derived key, which nobody is shown; the blocks that wrapping enciphers differ from those of
    /// the PRF but by chance of 2^-128 each, for the PRF masks its last block with a secret subkey. Wrapping a constant would have
    /// been simpler, but a terminal with that constant as its master key would have the result in the journal.
    #[must_use]
    pub fn pin_verification_key_bytes(&self) -> [u8; 16] {
        *self.pin_verification
    }

    /// Wraps a master key (RFC 3394 section 2.2.1). The same key wraps to the same bytes.
    #[must_use]
    pub fn wrap(&self, master: &MasterKey) -> [u8; 24] {
        self.wrap.wrap_fixed_key::<U16>(&Array::from(master.0)).0
    }

    /// Opens a wrapped master key (RFC 3394 section 2.2.2).
    ///
    /// # Errors
    /// [`UnwrapError`] where its integrity check fails.
    pub fn unwrap(&self, wrapped: &[u8; 24]) -> Result<MasterKey, UnwrapError> {
        self.wrap.unwrap_fixed_key::<U16>(&Array::from(*wrapped)).map(|key| MasterKey(key.0)).map_err(|_| UnwrapError)
    }
}

impl fmt::Debug for KeyEncryptionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyEncryptionKey(..)")
    }
}
