//! A picture in at most 256 colours: pages are flat, and their pictures become a third as large.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, BufWriter},
    path::Path,
};

use anyhow::{Result, ensure};
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter, Transformations};

/// Writes the picture anew.
///
/// # Errors
/// When it is no PNG of true colours, or cannot be written.
pub(super) fn reduce(path: &Path) -> Result<()> {
    let mut decoder = Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(Transformations::STRIP_16 | Transformations::EXPAND);
    let mut reader = decoder.read_info()?;
    let size = reader.output_buffer_size().unwrap_or_default();
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes)?;
    let width = match frame.color_type {
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        other => anyhow::bail!("a picture of {other:?}"),
    };
    let pixels: Vec<[u8; 3]> = bytes[..frame.buffer_size()]
        .chunks_exact(width)
        .map(|pixel| [pixel[0], pixel[1], pixel[2]])
        .collect();
    let (palette, indexes) = palette(&pixels);
    ensure!(palette.len() <= 256 * 3, "{} colours", palette.len() / 3);
    let mut encoder = Encoder::new(BufWriter::new(File::create(path)?), frame.width, frame.height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette);
    encoder.set_compression(Compression::High);
    encoder.set_filter(Filter::NoFilter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&indexes)?;
    Ok(writer.finish()?)
}

/// At most 256 colours, and which of them each pixel has: the most frequent ones as they are, and of all others the nearest.
fn palette(pixels: &[[u8; 3]]) -> (Vec<u8>, Vec<u8>) {
    let mut counts: HashMap<[u8; 3], u32> = HashMap::new();
    pixels.iter().for_each(|pixel| *counts.entry(*pixel).or_default() += 1);
    let mut frequent: Vec<_> = counts.iter().collect();
    frequent.sort_unstable_by_key(|&(colour, count)| (std::cmp::Reverse(*count), *colour));
    // What is rarer than these is the edge of a letter.
    frequent.truncate(4096);
    // Close to one that is taken already is no colour of its own; the distance grows until all fit.
    let mut taken: Vec<[u8; 3]> = Vec::new();
    for apart in [0, 40, 120, 300, 700, 1500] {
        taken.clear();
        for (colour, _) in &frequent {
            if taken.iter().all(|other| distance(**colour, *other) > apart) {
                taken.push(**colour);
                if taken.len() > 256 {
                    break;
                }
            }
        }
        if taken.len() <= 256 {
            break;
        }
    }
    taken.truncate(256);
    let nearest = |colour: [u8; 3]| {
        let best = (0_u8..=255).zip(&taken).min_by_key(|(_, other)| distance(colour, **other));
        best.map_or(0, |(index, _)| index)
    };
    let index: HashMap<_, _> = counts.keys().map(|colour| (*colour, nearest(*colour))).collect();
    (taken.concat(), pixels.iter().map(|pixel| index[pixel]).collect())
}

fn distance(one: [u8; 3], other: [u8; 3]) -> i32 {
    one.iter().zip(other).map(|(a, b)| (i32::from(*a) - i32::from(b)).pow(2)).sum()
}
