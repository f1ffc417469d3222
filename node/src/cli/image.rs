//! `rialto image`: the images in the store.

use std::path::PathBuf;

use clap::Subcommand;
use rialto_protocol::ids::ImageId;
use rialto_web::api::{
    AddImageRequest, ApiError, Collected, ExportImageRequest, ImageAdded, ImageExported, ImageSummary, ImageVerified,
    JobStarted, Scrubbed,
};
use serde_json::{Value, json};

use super::output::{Cell, Face, Outcome, Tone, age, count, rate};
use super::{absolute, existing, job};
use crate::client::Client;
use crate::convert::SourceFormat;
use crate::units::ByteSize;

/// Characters of an id that are enough to name an image, if only one begins so.
const MIN_PREFIX: usize = 12;

/// What to do with images. IMAGE is an id, or a unique beginning of at least 12 characters.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a file to the store, as it is or, where it is a disk, made flat
    Add {
        /// The file, or a block device that is not in use
        file: PathBuf,
        /// What the file is, where it is a disk; without this it is stored as it is
        #[arg(long)]
        format: Option<SourceFormat>,
        /// Which disk of an archive, where it has several
        #[arg(long, requires = "format")]
        member: Option<String>,
    },
    /// Write an image to a sparse raw file, or to one in qcow2
    Get {
        /// The image
        image: String,
        /// The file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// What to write
        #[arg(long, value_parser = ["raw", "qcow2"], default_value = "raw")]
        format: String,
    },
    /// List images: how long they are, what only they take on disk, and what they share with others
    Ls,
    /// Read an image back and check every chunk
    Verify {
        /// The image
        image: String,
    },
    /// Keep an image, whatever needs it
    Pin {
        /// The image
        image: String,
    },
    /// Keep an image only while something needs it
    Unpin {
        /// The image
        image: String,
    },
    /// Forget an image; `gc` then gives its space back
    Rm {
        /// The image
        image: String,
    },
    /// Read the whole store over again, and fetch what is damaged from other sites
    Scrub,
    /// Give back the space of chunks that no image needs
    Gc,
}

pub(super) async fn run(face: &Face, client: &Client, command: Command) -> Outcome {
    match command {
        Command::Add { file, format, member } => {
            let format = format.map(|format| format.to_string());
            add(face, client, AddImageRequest { file: existing(&file)?, format, member }).await
        }
        Command::Get { image, output, format } => {
            let request = ExportImageRequest { file: absolute(&output)?, format: Some(format) };
            get(face, client, &image, request).await
        }
        Command::Ls => ls(face, client).await,
        Command::Verify { image } => verify(face, client, &image).await,
        Command::Pin { image } => pin(face, client, &image, true).await,
        Command::Unpin { image } => pin(face, client, &image, false).await,
        Command::Rm { image } => rm(face, client, &image).await,
        Command::Scrub => scrub(face, client).await,
        Command::Gc => gc(face, client).await,
    }
}

async fn add(face: &Face, client: &Client, request: AddImageRequest) -> Outcome {
    let started = client.post("images", &request).await?;
    let result =
        job::follow(face, client, started, "chunks that were stored already are found again, or collected by image gc")
            .await?;
    face.print_result(&result, |page, added: ImageAdded| {
        page.line(Cell::new(added.image, Tone::Strong));
        page.fields([
            ("length", ByteSize(added.bytes).to_string().into()),
            ("chunks", format!("{}, {} new", count(added.chunks, "chunk"), added.new_chunks).into()),
            ("stored", ByteSize(added.stored_bytes).to_string().into()),
            ("took", took(added.bytes, added.seconds)),
        ]);
    })
}

async fn get(face: &Face, client: &Client, image: &str, request: ExportImageRequest) -> Outcome {
    let image = resolve(client, image).await?;
    let started = client.post(&format!("images/{image}/export"), &request).await?;
    let result = job::follow(face, client, started, "the file is not complete").await?;
    face.print_result(&result, |page, exported: ImageExported| {
        page.line(exported.file);
        page.fields([
            ("length", ByteSize(exported.bytes).to_string().into()),
            ("took", took(exported.bytes, exported.seconds)),
        ]);
    })
}

async fn ls(face: &Face, client: &Client) -> Outcome {
    let images: Vec<ImageSummary> = client.get("images").await?;
    face.print(&images, |page| {
        if images.is_empty() {
            return page.line("no images; add one with: rialto image add FILE");
        }
        let rows = images.iter().map(|image| {
            let state = match (image.missing_chunks, image.is_pinned) {
                (0, true) => Cell::new("pinned", Tone::Good),
                (0, false) => Cell::new("complete", Tone::Good),
                (missing, _) => Cell::new(format!("{missing} of {} missing", image.chunks), Tone::Warn),
            };
            let used_by = image.used_by.join(", ");
            [
                Cell::from(image.image.to_string()),
                Cell::size(image.bytes),
                Cell::size(image.data_bytes),
                Cell::size(image.own_bytes),
                Cell::size(image.shared_bytes),
                state,
                Cell::number(age(&image.added)),
                used_by.into(),
            ]
        });
        page.table(["IMAGE", "LENGTH", "DATA", "OWN", "SHARED", "STATE", "AGE", "USED BY"], rows.collect());
    })
}

/// A damaged image is a failure, with the result all the same.
async fn verify(face: &Face, client: &Client, image: &str) -> Outcome {
    let image = resolve(client, image).await?;
    let started = client.post_empty(&format!("images/{image}/verify")).await?;
    let result = job::follow(face, client, started, "nothing was changed").await?;
    let bad_chunks = result["bad_chunks"].as_u64().unwrap_or_default();
    face.print_result(&result, |page, verified: ImageVerified| {
        let tone = if verified.bad_chunks == 0 { Tone::Good } else { Tone::Bad };
        page.fields([
            ("image", verified.image.to_string().into()),
            ("good", count(verified.good_chunks, "chunk").into()),
            ("bad", Cell::new(count(verified.bad_chunks, "chunk"), tone)),
            ("took", format!("{:.1} s", verified.seconds).into()),
        ]);
    })?;
    if bad_chunks > 0 {
        let message = format!("{} of image {image} missing or damaged", count(bad_chunks, "chunk"));
        return Err(ApiError::failed(message)
            .with_hint(format!("fetch what is lacking from other sites: rialto fetch {image}")));
    }
    Ok(())
}

async fn pin(face: &Face, client: &Client, image: &str, is_pinned: bool) -> Outcome {
    let image = resolve(client, image).await?;
    let verb = if is_pinned { "pin" } else { "unpin" };
    let _: Value = client.post_empty(&format!("images/{image}/{verb}")).await?;
    face.print(&json!({"image": image, "is_pinned": is_pinned}), |page| page.line(format!("{verb}ned {image}")))
}

async fn rm(face: &Face, client: &Client, image: &str) -> Outcome {
    let image = resolve(client, image).await?;
    let _: Value = client.delete(&format!("images/{image}")).await?;
    face.print(&json!({"image": image, "is_removed": true}), |page| {
        page.line(format!("removed {image}; rialto image gc gives its space back"));
    })
}

/// What stays lost is a failure, with the result all the same.
async fn scrub(face: &Face, client: &Client) -> Outcome {
    let started: JobStarted = client.post_empty("images/scrub").await?;
    let result = job::follow(face, client, started, "what was checked is checked again the next time").await?;
    let lost = result["lost"].as_array().map_or(0, Vec::len) as u64;
    face.print_result(&result, |page, scrubbed: Scrubbed| {
        let tone = if scrubbed.damaged_chunks == 0 { Tone::Good } else { Tone::Bad };
        page.fields([
            ("read", took(scrubbed.bytes, scrubbed.seconds)),
            ("damaged", Cell::new(count(scrubbed.damaged_chunks, "chunk"), tone)),
            ("mended", count(scrubbed.mended.len() as u64, "image").into()),
        ]);
        scrubbed.lost.iter().for_each(|image| page.line(format!("lost: a part of {image}")));
    })?;
    if lost > 0 {
        let message = format!("{} lack what no site that was asked has", count(lost, "image"));
        return Err(ApiError::failed(message).with_hint("see who is connected with: rialto peers; then scrub again"));
    }
    Ok(())
}

async fn gc(face: &Face, client: &Client) -> Outcome {
    let started: JobStarted = client.post_empty("images/gc").await?;
    let result = job::follow(face, client, started, "what was given back stays so").await?;
    face.print_result(&result, |page, collected: Collected| {
        page.line(format!(
            "{} dropped, {} freed",
            count(collected.dropped_chunks, "chunk"),
            ByteSize(collected.freed_bytes)
        ));
    })
}

fn took(bytes: u64, seconds: f64) -> Cell {
    format!("{seconds:.1} s  {}", rate(bytes, seconds)).into()
}

/// The image that an id or the beginning of one names.
async fn resolve(client: &Client, text: &str) -> Outcome<ImageId> {
    let error = match text.parse::<ImageId>() {
        Ok(image) => return Ok(image),
        Err(error) => error,
    };
    let is_prefix =
        text.len() >= MIN_PREFIX && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !is_prefix {
        return Err(ApiError::usage(error.to_string()).with_hint("rialto image ls shows the images there are"));
    }
    let images: Vec<ImageSummary> = client.get("images").await?;
    let mut found = images.iter().map(|image| image.image).filter(|image| image.to_string().starts_with(text));
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(image),
        (Some(_), Some(_)) => Err(ApiError::usage(format!("several images begin with '{text}'; give more of the id"))),
        (None, _) => Err(ApiError::not_found(format!("no image begins with '{text}'"))
            .with_hint("rialto image ls shows the images there are")),
    }
}
