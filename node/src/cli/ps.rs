//! `rialto ps`: the instances of this node.

use rialto_web::api::Instance;

use super::deploy::ports;
use super::output::{Cell, Face, Outcome, Tone, age};
use crate::client::Client;

pub(super) async fn run(face: &Face, client: &Client) -> Outcome {
    let instances: Vec<Instance> = client.get("instances").await?;
    face.print(&instances, |page| {
        if instances.is_empty() {
            return page.line("no instances; start one with: rialto deploy RELEASE");
        }
        let rows = instances.iter().map(|instance| {
            let tone = match instance.state.as_str() {
                "running" => Tone::Good,
                "failed" => Tone::Bad,
                _ => Tone::Plain,
            };
            [
                Cell::new(&instance.instance, Tone::Strong),
                (&instance.title).into(),
                Cell::new(&instance.state, tone),
                (&instance.class).into(),
                Cell::number(instance.vcpus),
                Cell::size(instance.memory_bytes),
                (&instance.accelerator).into(),
                Cell::number(age(&instance.created)),
                ports(&instance.ports).into(),
                Cell::new(instance.channel.as_deref().unwrap_or_default(), Tone::Plain),
                Cell::new(remarks(instance), Tone::Warn),
            ]
        });
        page.table(
            ["INSTANCE", "RELEASE", "STATE", "CLASS", "VCPUS", "MEMORY", "BY", "AGE", "PORTS", "FOLLOWS", "NOTE"],
            rows.collect(),
        );
    })
}

/// What is to be said of it: what went wrong, and what its channel has moved to.
fn remarks(instance: &Instance) -> String {
    let remarks: Vec<&str> = [&instance.note, &instance.update].into_iter().flatten().map(String::as_str).collect();
    remarks.join("; ")
}
