//! The policies of a simulation: files as an administrator would write them, read by the node's own parser.

use std::fmt::Write as _;
use std::sync::Arc;

use rialto_node::keys::to_openssh;
use rialto_node::trust::Policy;
use rialto_protocol::ids::PublicKey;

use super::SimError;

/// Draws a policy file over some of these signers: who may publish, with and without endorsements, and who reviews.
pub(super) fn draw(signers: &[PublicKey], random: &mut fastrand::Rng) -> Result<Arc<Policy>, SimError> {
    // Each names about two in three of the signers, and certainly one.
    let certain = random.usize(..signers.len());
    let named: Vec<usize> = (0..signers.len()).filter(|signer| *signer == certain || random.u8(..3) > 0).collect();
    let list = |signers: &[usize]| {
        let quoted: Vec<String> = signers.iter().map(|signer| format!("\"signer-{signer}\"")).collect();
        format!("[{}]", quoted.join(", "))
    };
    let mut text = String::from("[signers]\n");
    for &signer in &named {
        let key = to_openssh(&signers[signer], "").map_err(|error| SimError::Broken(error.to_string()))?;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "signer-{signer} = \"{}\"", key.trim());
    }
    let threshold = random.usize(1..=named.len().min(2));
    let reviewers = list(&named);
    let (trusted, tested) = named.split_at(random.usize(..=named.len()));
    let _ = writeln!(text, "[roles]\nreviewers = {{ signers = {reviewers}, threshold = {threshold} }}");
    let tests = match random.bool() {
        true => "\"endorsed-by:reviewers\"",
        false => "\"channel-fresh\"",
    };
    for (name, publishers, require) in [("trusted", trusted, ""), ("tested", tested, tests)] {
        if publishers.is_empty() {
            continue;
        }
        let otherwise = if random.bool() { "hold" } else { "reject" };
        let (publishers, name) = (list(publishers), format!("{name} publishers"));
        let _ = writeln!(
            text,
            "[[rule]]\nname = \"{name}\"\nmatch = {{ publisher = {publishers} }}\nrequire = [{require}]\n\
             then = \"accept\"\notherwise = \"{otherwise}\""
        );
    }
    text.push_str("[default]\nthen = \"hold\"\n");
    let policy = Policy::parse(&text).map_err(|error| SimError::Broken(format!("{error} in\n{text}")))?;
    Ok(Arc::new(policy))
}
