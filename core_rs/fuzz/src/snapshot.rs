//! Snapshots: a state's image is taken up before its checksum is known to be right, so damage reaches it. It is refused by a
//! sentence, or is a state: its own image is what was read, its sum is zero, and the journal can go on from it.

use std::cell::OnceCell;

use switch_core::ledger::Ledger;
use switch_core::ledger::image::{Blocks, IMAGE_BLOCK_BYTES_MAX};

use crate::Input;
use crate::authorizer::{STATE_SAMPLES, begun_records, replayed, sample_records};

/// Changes of one plan.
const CHANGES_MAX: usize = 16;

type Image = Vec<Vec<u8>>;

/// What every plan starts from, worked out once: the image before the last records, and these.
struct Sound {
    image: Image,
    next: Vec<Vec<u8>>,
}

thread_local!(static SOUND: OnceCell<Sound> = const { OnceCell::new() });

/// The image's blocks without their lengths.
fn image_of(ledger: &Ledger) -> Image {
    let mut blocks = Image::new();
    ledger.image(&mut |block| blocks.push(block[4..].to_vec()));
    blocks
}

struct Given {
    blocks: std::vec::IntoIter<Vec<u8>>,
    block: Vec<u8>,
}

impl Blocks for Given {
    fn next(&mut self) -> Result<&[u8], String> {
        self.block =
            self.blocks.next().filter(|block| (1..=IMAGE_BLOCK_BYTES_MAX).contains(&block.len())).ok_or("it ends too early")?;
        Ok(&self.block)
    }
}

/// Alters a college's image as `data` says, and takes it up.
pub fn check(data: &[u8]) {
    SOUND.with(|sound| {
        let Sound { image, next } = sound.get_or_init(|| {
            let (mut records, samples) = (begun_records(), sample_records());
            let (state, next) = samples.split_at(STATE_SAMPLES);
            records.extend_from_slice(state);
            Sound { image: image_of(&replayed(&records)), next: next.to_vec() }
        });
        take_up(altered(image.clone(), data), next);
    });
}

fn altered(mut image: Image, data: &[u8]) -> Image {
    let mut input = Input(data);
    for _ in 0..CHANGES_MAX {
        let Some([kind, block, high, low, count]) = input.array() else { break };
        let index = usize::from(block) % image.len();
        let block = &mut image[index];
        let at = usize::from(u16::from_be_bytes([high, low])) % (block.len() + 1);
        let bytes = input.bytes(usize::from(count % 24) + 1);
        match kind % 5 {
            0 | 1 => {
                let end = block.len().min(at + bytes.len());
                block[at..end].copy_from_slice(&bytes[..end - at]);
            }
            2 => drop(block.splice(at..at, bytes.iter().copied())),
            3 => drop(block.drain(at..(at + bytes.len()).min(block.len()))),
            _ => {
                let copy = block.clone();
                image.insert(usize::from(high) % (image.len() + 1), copy);
            }
        }
    }
    image
}

fn take_up(image: Image, next: &[Vec<u8>]) {
    let read = image.concat();
    let Ok(mut ledger) = Ledger::from_image(&mut Given { blocks: image.into_iter(), block: Vec::new() }) else { return };
    let again = image_of(&ledger).concat();
    assert!(read.starts_with(&again), "a state's image is what it was taken from");
    assert_eq!(ledger.accounts().sum(), 0);
    for record in next {
        // Another state than theirs: any outcome will do.
        let _ = ledger.replay(ledger.position() + 1, record).map(|_| ());
        assert_eq!(ledger.accounts().sum(), 0);
    }
}

/// No change, and a byte changed in each of the first blocks.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for block in 0..48 {
        for kind in 0..4 {
            seeds.push(vec![kind, block, 0, 3, 1, 0, 1]);
        }
    }
    seeds
}
