//! Log files that do not grow for ever.
//!
//! ```text
//!   cairn.log                               the lines of now
//!   cairn-2026-12-01T04-49-20.123.log       put aside then, because the next line would have made it too large
//!   cairn-2026-11-30T23-10-01.007.log.gz    the same, compressed since
//! ```
//!
//! Names and rules are those of lumberjack, with which etcd rotates. A line is never cut in two, and one that is
//! longer than a file may be gets a file of its own. Files are put aside by the thread that writes the line; what is
//! old is compressed and removed by a thread of its own, so that no line waits for it. A step that fails is tried
//! again with the next file: the lines go on into the file that is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use parking_lot::Mutex;

use super::super::log_settings::LogRotation;
use super::open_file;

/// The time in the name of a file that was put aside.
const NAME_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

const DAY: Duration = Duration::from_hours(24);

/// A file that is put aside when it gets too large.
pub(crate) struct RotatingFile {
    aside: Arc<Aside>,
    current: Mutex<Current>,
    clean: SyncSender<()>,
}

struct Current {
    file: File,
    bytes: u64,
}

impl RotatingFile {
    /// Goes on with the file at `path`, or makes it.
    pub(super) fn open(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        let aside = Arc::new(Aside::new(path, rotation)?);
        let file = open_file(path)?;
        let bytes = file.metadata()?.len();
        // One more file to clean up after is enough: the thread looks at all of them.
        let (clean, cleaning) = sync_channel(1);
        let cleaner = Arc::clone(&aside);
        thread::Builder::new().name("cairn-log".into()).spawn(move || cleaner.clean_up(&cleaning))?;
        let rotating = Self { aside, current: Mutex::new(Current { file, bytes }), clean };
        rotating.ask_to_clean();
        Ok(rotating)
    }

    /// Writes a whole line.
    pub(super) fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut current = self.current.lock();
        let bytes = line.len() as u64;
        if current.bytes > 0 && current.bytes + bytes > self.aside.rotation.max_bytes() {
            let begun = self.aside.put_aside(Timestamp::now()).and_then(|()| {
                let file = open_file(&self.aside.path)?;
                file.set_permissions(current.file.metadata()?.permissions())?;
                Ok(file)
            });
            if let Ok(file) = begun {
                *current = Current { file, bytes: 0 };
                self.ask_to_clean();
            }
        }
        current.bytes += bytes;
        current.file.write_all(line)
    }

    fn ask_to_clean(&self) {
        // One that is asked already comes to this file, too.
        let _ = self.clean.try_send(());
    }
}

/// The files that were put aside.
struct Aside {
    path: PathBuf,
    directory: PathBuf,
    /// What stands before and after the time in a name.
    prefix: String,
    suffix: String,
    zone: TimeZone,
    rotation: LogRotation,
}

impl Aside {
    fn new(path: &Path, rotation: LogRotation) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a rotated file needs a name"))?;
        let (stem, suffix) =
            name.rsplit_once('.').map_or((name, String::new()), |(stem, end)| (stem, format!(".{end}")));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let zone = if rotation.local_time { TimeZone::system() } else { TimeZone::UTC };
        fs::create_dir_all(directory)?;
        Ok(Self {
            path: path.to_owned(),
            directory: directory.to_owned(),
            prefix: format!("{stem}-"),
            suffix,
            zone,
            rotation,
        })
    }

    /// Gives the file that was written the name of `now`, or of the first moment after it that no file has.
    fn put_aside(&self, now: Timestamp) -> io::Result<()> {
        let mut at = now;
        loop {
            let time = self.zone.to_datetime(at).strftime(NAME_TIME).to_string();
            let name = self.directory.join(format!("{}{time}{}", self.prefix, self.suffix));
            if !name.exists() && !compressed(&name).exists() {
                return fs::rename(&self.path, name);
            }
            at = at.checked_add(Duration::from_millis(1)).map_err(io::Error::other)?;
        }
    }

    fn clean_up(&self, asked: &Receiver<()>) {
        while asked.recv().is_ok() {
            // Nothing can be logged from here, and the next file brings another attempt.
            let _ = self.clean(Timestamp::now());
        }
    }

    /// Removes what is too old or too much, and compresses the rest if that is wanted.
    fn clean(&self, now: Timestamp) -> io::Result<()> {
        let mut newest: BTreeSet<(std::cmp::Reverse<Timestamp>, PathBuf)> = BTreeSet::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some(at) = path.file_name().and_then(|name| name.to_str()).and_then(|name| self.time_of(name)) {
                newest.insert((std::cmp::Reverse(at), path));
            }
        }
        let (mut kept, mut last) = (0, None);
        for (std::cmp::Reverse(at), path) in newest {
            // A file and its compressed form count as one.
            if last != Some(at) {
                kept += 1;
            }
            last = Some(at);
            let too_many = self.rotation.max_backups > 0 && kept > self.rotation.max_backups;
            let age_max = DAY * self.rotation.max_age_days;
            let too_old = !age_max.is_zero() && now.duration_since(at).unsigned_abs() > age_max && at < now;
            if too_many || too_old {
                fs::remove_file(&path)?;
            } else if self.rotation.compress && path.extension().is_none_or(|end| end != "gz") {
                compress(&path)?;
            }
        }
        Ok(())
    }

    /// When the file of this name was put aside, if it is one of these.
    fn time_of(&self, name: &str) -> Option<Timestamp> {
        let name = name.strip_suffix(".gz").unwrap_or(name);
        let time = name.strip_prefix(&self.prefix)?.strip_suffix(&self.suffix)?;
        let time = DateTime::strptime(NAME_TIME, time).ok()?;
        Some(self.zone.to_ambiguous_zoned_datetime(time).compatible().ok()?.timestamp())
    }
}

fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Puts a compressed file in the place of a file. A process that ends meanwhile leaves both, and the next one starts
/// anew.
fn compress(path: &Path) -> io::Result<()> {
    let mut from = File::open(path)?;
    let to = File::create(compressed(path))?;
    to.set_permissions(from.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use tempfile::TempDir;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn rotation(max_size_mib: u64) -> LogRotation {
        LogRotation { max_size_mib, ..LogRotation::default() }
    }

    fn names(dir: &TempDir) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_file_is_put_aside_before_a_line_that_does_not_fit() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("deeper/a.log");
        let half = vec![b'x'; MIB / 2];
        let rotating = RotatingFile::open(&path, rotation(1)).unwrap();
        rotating.write_line(&half).unwrap();
        rotating.write_line(&half).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "it fits");
        rotating.write_line(b"more").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"more");
        rotating.write_line(&vec![b'y'; 2 * MIB]).unwrap();
        rotating.write_line(b"last").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"last");
        let mut sizes: Vec<_> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [4, 4, MIB as u64, 2 * MIB as u64], "no line is lost or cut");
    }

    #[test]
    fn what_an_earlier_process_wrote_counts() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.log");
        fs::write(&path, vec![b'x'; MIB]).unwrap();
        RotatingFile::open(&path, rotation(1)).unwrap().write_line(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(&dir).len(), 2);
    }

    #[test]
    fn names_carry_the_time_and_are_never_taken_twice() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.log");
        let aside = Aside::new(&path, rotation(1)).unwrap();
        for _ in 0..2 {
            fs::write(&path, "x").unwrap();
            aside.put_aside(at("2026-12-01T04:49:20.123456Z")).unwrap();
        }
        assert_eq!(names(&dir), ["a-2026-12-01T04-49-20.123.log", "a-2026-12-01T04-49-20.124.log"]);
        for name in ["a.log", "a-2026-12-01.log", "b-2026-12-01T04-49-20.123.log", "a-2026-12-01T04-49-20.123.txt"] {
            assert_eq!(aside.time_of(name), None, "{name}");
        }
        let same = at("2026-12-01T04:49:20.123Z");
        assert_eq!(aside.time_of("a-2026-12-01T04-49-20.123.log.gz"), Some(same));
        let bare = Aside::new(Path::new("log"), rotation(1)).unwrap();
        assert_eq!(bare.time_of("log-2026-12-01T04-49-20.123"), Some(same));
        let mut local = Aside::new(&path, rotation(1)).unwrap();
        local.zone = TimeZone::fixed(jiff::tz::offset(-5));
        assert_eq!(local.time_of("a-2026-11-30T23-49-20.123.log"), Some(same));
    }

    #[test]
    fn what_is_too_old_or_too_much_is_removed_and_the_rest_compressed() {
        let day = |day: u32| format!("a-2026-12-{day:02}T00-00-00.000.log");
        for (max_backups, max_age_days, compress, kept) in [
            (0, 0, false, vec![day(1), day(2), day(3), format!("{}.gz", day(4))]),
            (2, 0, false, vec![day(3), format!("{}.gz", day(4))]),
            (0, 2, false, vec![day(3), format!("{}.gz", day(4))]),
            (3, 2, true, vec![format!("{}.gz", day(3)), format!("{}.gz", day(4))]),
            (1, 9, true, vec![format!("{}.gz", day(4))]),
        ] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("a.log");
            for number in 1..=3 {
                fs::write(dir.path().join(day(number)), format!("day {number}")).unwrap();
            }
            fs::write(dir.path().join(format!("{}.gz", day(4))), "").unwrap();
            fs::write(dir.path().join("another.log"), "").unwrap();
            let rotation = LogRotation { max_age_days, max_backups, compress, ..rotation(1) };
            Aside::new(&path, rotation).unwrap().clean(at("2026-12-05T00:00:00Z")).unwrap();
            let expected: Vec<_> = kept.iter().cloned().chain(["another.log".to_owned()]).collect();
            assert_eq!(names(&dir), expected, "{max_backups} {max_age_days} {compress}");
            if kept[0] == format!("{}.gz", day(3)) {
                let mut text = String::new();
                GzDecoder::new(File::open(dir.path().join(&kept[0])).unwrap()).read_to_string(&mut text).unwrap();
                assert_eq!(text, "day 3");
            }
        }
    }
}
