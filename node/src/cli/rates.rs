//! `rialto rates [--upload RATE] [--per-peer RATE] [--download RATE] [--reset]`

use clap::Args;
use rialto_web::api::{ChangeRates, Rates};

use super::output::{Face, Outcome};
use crate::client::Client;
use crate::units::Rate;

/// What to change; nothing to be shown what holds now.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// To all sites together: "10 MB/s", "100 Mbit/s" or unlimited
    #[arg(long, value_name = "RATE")]
    upload: Option<Rate>,
    /// To one site
    #[arg(long, value_name = "RATE")]
    per_peer: Option<Rate>,
    /// From all sites together
    #[arg(long, value_name = "RATE")]
    download: Option<Rate>,
    /// First back to what config.toml says for the hour
    #[arg(long)]
    reset: bool,
}

pub(super) async fn run(face: &Face, client: &Client, arguments: Arguments) -> Outcome {
    let limit = |rate: Option<Rate>| rate.map(|rate| rate.bytes_per_second().into());
    let change = ChangeRates {
        upload: limit(arguments.upload),
        upload_per_peer: limit(arguments.per_peer),
        download: limit(arguments.download),
        reset: arguments.reset,
    };
    let rates: Rates = match change == ChangeRates::default() {
        true => client.get("rates").await?,
        false => client.post("rates", &change).await?,
    };
    face.print(&rates, |page| {
        let shown = |rate: Option<u64>| Rate::new(rate).to_string().into();
        page.fields([
            ("upload", shown(rates.upload)),
            ("to one site", shown(rates.upload_per_peer)),
            ("download", shown(rates.download)),
            (
                "set by",
                if rates.is_overridden { "rialto rates, until the node is restarted" } else { "config.toml" }.into(),
            ),
        ]);
    })
}
