//! The seed: a small read-only disk that tells a guest who it is and what the operator set.
//!
//! # What the guest finds
//! A virtio disk (serial `seed`) without partitions, FAT, label `CIDATA`, where cloud-init's NoCloud source looks. Without
//! cloud-init: find it with `blkid -L CIDATA` or as `/dev/disk/by-id/virtio-seed`, mount it read-only as `vfat`, and read:
//!
//! | file | content |
//! |---|---|
//! | `meta-data` | JSON (hence YAML): `instance-id`, `local-hostname` |
//! | `user-data` | `#cloud-config`, then JSON: `write_files` puts the next two files into `/etc/rialto/` (root, 0600); `rialto` is the content of `context.json` |
//! | `context.json` | `{"v": 1, "instance": ID, "release": ID, "hostname": NAME, "inputs": {NAME: VALUE, …}}`; values have the type of their input: text, number or boolean |
//! | `context.env` | for a shell to source: a line `NAME='value'` for every input, then `RIALTO_INSTANCE`, `RIALTO_RELEASE` and `RIALTO_HOSTNAME` |
//!
//! In `context.env` names are upper case with `.` and `-` as `_`, and `_` before a leading digit; of two inputs that come
//! to the same name the later in alphabetical order counts. Values are in single quotes, with `'\''` for a quote, so
//! `. context.env` runs nothing; a value may have line feeds. Inputs without a value are absent from both files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rialto_protocol::bounded::Name;
use rialto_protocol::ids::RecordId;
use rialto_protocol::record::{ContextSchema, InputType};
use serde_json::{Value, json};

/// The volume's label, padded as FAT wants it.
const LABEL: [u8; 11] = *b"CIDATA     ";
/// A volume is at least this long: below it, FAT's own structures leave little room.
const MIN_VOLUME_BYTES: u64 = 1 << 20;
/// The volume's length is a multiple of this.
const VOLUME_STEP_BYTES: u64 = 1 << 16;
/// Longest host name label (RFC 1035).
const MAX_HOSTNAME: usize = 63;

/// What a guest is told.
#[derive(Debug, Clone)]
pub struct Seed {
    /// Id of the instance.
    pub instance: String,
    /// The release that it runs.
    pub release: RecordId,
    /// Its host name: see [`hostname`].
    pub hostname: String,
    /// Its inputs, typed.
    pub inputs: BTreeMap<String, Value>,
}

impl Seed {
    /// A seed with values that [`ContextSchema::resolve`] returned for this schema.
    pub fn new(
        instance: &str,
        release: RecordId,
        appliance: &Name,
        schema: &ContextSchema,
        values: &BTreeMap<Name, String>,
    ) -> Self {
        let typed = |name: &Name, value: &String| {
            let kind = schema.inputs().find(|(known, _)| *known == name).map(|(_, input)| input.kind);
            let number = value.parse::<i64>().ok().filter(|_| kind == Some(InputType::Integer));
            let boolean = value.parse::<bool>().ok().filter(|_| kind == Some(InputType::Boolean));
            number.map(Value::from).or(boolean.map(Value::from)).unwrap_or_else(|| Value::from(value.as_str()))
        };
        let inputs = values.iter().map(|(name, value)| (name.to_string(), typed(name, value))).collect();
        Self { instance: instance.to_owned(), release, hostname: hostname(appliance, instance), inputs }
    }

    /// Writes the volume to a new file at `path`, readable by its owner only: inputs may be secrets.
    ///
    /// # Errors
    /// The file exists, or the disk is full.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let files = self.files();
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.set_len(volume_bytes(&files))?;
        format(&file, &files)?;
        file.sync_all()
    }

    fn files(&self) -> [(&'static str, String); 4] {
        let context = json!({
            "v": 1,
            "instance": self.instance,
            "release": self.release,
            "hostname": self.hostname,
            "inputs": self.inputs,
        });
        let meta = json!({ "instance-id": self.instance, "local-hostname": self.hostname });
        let env = self.env();
        let user = json!({
            "write_files": [
                { "path": "/etc/rialto/context.json", "permissions": "0600", "content": format!("{context:#}\n") },
                { "path": "/etc/rialto/context.env", "permissions": "0600", "content": env },
            ],
            "rialto": context,
        });
        [
            ("meta-data", format!("{meta:#}\n")),
            ("user-data", format!("#cloud-config\n{user:#}\n")),
            ("context.json", format!("{context:#}\n")),
            ("context.env", env),
        ]
    }

    fn env(&self) -> String {
        let mut lines = String::new();
        let mut line = |name: &str, value: &str| {
            lines += &format!("{name}='{}'\n", value.replace('\'', r"'\''"));
        };
        for (name, value) in &self.inputs {
            line(&variable(name), value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string()).as_str());
        }
        line("RIALTO_INSTANCE", &self.instance);
        line("RIALTO_RELEASE", &self.release.to_string());
        line("RIALTO_HOSTNAME", &self.hostname);
        lines
    }
}

/// A host name for an instance: the appliance's name in `[a-z0-9-]`, and the start of the instance's id.
pub fn hostname(appliance: &Name, instance: &str) -> String {
    let suffix: String = instance.chars().take(6).collect();
    let name = appliance.replace(['.', '_'], "-");
    let name = &name[..name.len().min(MAX_HOSTNAME - 1 - suffix.len())];
    format!("{}-{suffix}", name.trim_end_matches('-'))
}

fn variable(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace(['.', '-'], "_");
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// Content, rounded up to the largest cluster per file, and as much again for the FATs and directories.
fn volume_bytes(files: &[(&'static str, String)]) -> u64 {
    let content: u64 = files.iter().map(|(_, text)| (text.len() as u64).next_multiple_of(32 * 1024)).sum();
    (content + content / 16 + MIN_VOLUME_BYTES).next_multiple_of(VOLUME_STEP_BYTES)
}

fn format(file: &File, files: &[(&'static str, String)]) -> io::Result<()> {
    let options = fatfs::FormatVolumeOptions::new().volume_label(LABEL).volume_id(0x5249_414c);
    fatfs::format_volume(file, options)?;
    let volume = fatfs::FileSystem::new(file, fatfs::FsOptions::new())?;
    for (name, text) in files {
        let mut entry = volume.root_dir().create_file(name)?;
        entry.write_all(text.as_bytes())?;
        entry.flush()?;
    }
    volume.unmount()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::process::Command;

    use rialto_protocol::record::ContextInput;

    use super::*;

    fn name(text: &str) -> Name {
        text.try_into().unwrap()
    }

    fn schema(kinds: &[(&str, InputType)]) -> ContextSchema {
        let input = |kind| ContextInput { kind, required: false, secret: false, default: None, description: None };
        let inputs: BTreeMap<_, _> = kinds.iter().map(|(text, kind)| (name(text), input(*kind))).collect();
        inputs.try_into().unwrap()
    }

    fn written(values: &[(&str, InputType, &str)]) -> (tempfile::TempDir, fatfs::FileSystem<File>) {
        let kinds: Vec<_> = values.iter().map(|(name, kind, _)| (*name, *kind)).collect();
        let schema = schema(&kinds);
        let given = values.iter().map(|(name, _, value)| (name.to_string(), value.to_string())).collect();
        let resolved = schema.resolve(&given).unwrap();
        let seed = Seed::new("0123456789abcdef", RecordId::of(b"r"), &name("web_1.2"), &schema, &resolved);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed.img");
        seed.write(&path).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        (directory, fatfs::FileSystem::new(file, fatfs::FsOptions::new()).unwrap())
    }

    fn read(volume: &fatfs::FileSystem<File>, file: &str) -> String {
        let mut text = String::new();
        volume.root_dir().open_file(file).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    const NASTY: &str = "it's \"two\"\nlines: $(reboot) `id` \\ {{ jinja }} # ü";

    #[test]
    fn a_volume_has_what_the_module_says() {
        let (_directory, volume) = written(&[
            ("greeting", InputType::String, NASTY),
            ("count", InputType::Integer, "-7"),
            ("is.on-air", InputType::Boolean, "true"),
            ("9lives", InputType::String, "12"),
        ]);
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
        assert_ne!(volume.fat_type(), fatfs::FatType::Fat32);
        let context: Value = serde_json::from_str(&read(&volume, "context.json")).unwrap();
        assert_eq!(context["inputs"], json!({"greeting": NASTY, "count": -7, "is.on-air": true, "9lives": "12"}));
        let meta: Value = serde_json::from_str(&read(&volume, "meta-data")).unwrap();
        assert_eq!(meta, json!({"instance-id": "0123456789abcdef", "local-hostname": "web-1-2-012345"}));
        let user = read(&volume, "user-data");
        let user: Value = serde_json::from_str(user.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(user["rialto"], context);
        assert_eq!(user["write_files"][1]["content"], read(&volume, "context.env"));
        let env = read(&volume, "context.env");
        assert!(env.contains("COUNT='-7'\n") && env.contains("IS_ON_AIR='true'\n") && env.contains("_9LIVES='12'\n"));
    }

    #[test]
    fn sourcing_the_environment_gives_the_value_back_and_runs_nothing() {
        let (directory, volume) = written(&[("greeting", InputType::String, NASTY)]);
        let path = directory.path().join("context.env");
        std::fs::write(&path, read(&volume, "context.env")).unwrap();
        let script = ". \"$1\" && printf %s \"$GREETING\"";
        let output = Command::new("sh").args(["-euc", script, "sh"]).arg(&path).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), NASTY);
        assert!(output.status.success());
    }

    #[test]
    fn the_largest_context_fits() {
        let names: Vec<String> = (0..64).map(|n| format!("input{n}")).collect();
        let value = "'".repeat(16 * 1024);
        let values: Vec<_> = names.iter().map(|name| (name.as_str(), InputType::String, value.as_str())).collect();
        let (_directory, volume) = written(&values);
        assert_ne!(volume.fat_type(), fatfs::FatType::Fat32);
        assert!(read(&volume, "context.env").len() > 4 << 20);
    }

    #[test]
    fn host_names_are_labels() {
        assert_eq!(hostname(&name("a"), "0123456789"), "a-012345");
        let long = hostname(&name(&"x.".repeat(32)), "0123456789");
        assert!(long.len() <= MAX_HOSTNAME && long.ends_with("x-012345"), "{long}");
    }
}
