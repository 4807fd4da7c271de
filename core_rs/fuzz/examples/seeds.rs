//! Writes the seeds: `cargo run --example seeds FOLDER`. The published vectors of the protocol are among them.

use std::path::Path;
use std::{env, fs, io};

fn hex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect()
}

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).expect("usage: seeds FOLDER");
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../../tests/vectors.json")).expect("JSON");
    let messages: Vec<Vec<u8>> = vectors["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|vector| hex(vector["message"].as_str().expect("hexadecimal digits")))
        .collect();
    let framed = |message: &Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], message].concat();
    let no_key = 3;
    for (target, own, published) in [
        ("frame", switch_fuzz::frame::seeds(), vec![messages.iter().flat_map(framed).collect()]),
        ("message", switch_fuzz::message::seeds(), messages.clone()),
        (
            "authorizer",
            switch_fuzz::authorizer::seeds(),
            messages.iter().map(|message| switch_fuzz::authorizer::raw(message, no_key)).collect(),
        ),
        ("record", switch_fuzz::record::seeds(), Vec::new()),
        ("journal", switch_fuzz::journal::seeds(), Vec::new()),
        ("snapshot", switch_fuzz::snapshot::seeds(), Vec::new()),
    ] {
        let place = Path::new(&folder).join(target);
        fs::create_dir_all(&place)?;
        for (number, seed) in own.into_iter().chain(published).enumerate() {
            fs::write(place.join(format!("{number:03}")), seed)?;
        }
    }
    Ok(())
}
