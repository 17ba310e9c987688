//! Many commands in one raft entry.
//!
//! ```text
//! entry = { length varint | command [length bytes] }   one or more times
//! ```
//! An entry closes at [`ENTRY_BYTES_MAX`] or [`ENTRY_COMMANDS_MAX`], whichever comes first; a command larger than that
//! travels alone. An entry without data is what raft itself writes when a leader begins its term.

use bytes::{BufMut, Bytes};
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{
    Command, CommandError,
    codec::{self, get_varint},
};

/// Bytes at which an entry closes, lengths included.
pub const ENTRY_BYTES_MAX: usize = 256 << 10;
/// Commands at which an entry closes.
pub const ENTRY_COMMANDS_MAX: usize = 512;

/// Packs encoded commands into the data of one raft entry.
#[derive(Debug, Default)]
pub struct EntryBuilder {
    data: Vec<u8>,
    commands: usize,
}

impl EntryBuilder {
    /// An empty entry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether an encoded command of `bytes` still belongs into this entry. An empty entry takes any one command.
    pub fn fits(&self, bytes: usize) -> bool {
        self.commands == 0
            || (self.commands < ENTRY_COMMANDS_MAX
                && self.data.len() + encoded_len_varint(bytes as u64) + bytes <= ENTRY_BYTES_MAX)
    }

    /// Adds an encoded command; `false`, and nothing is added, if the entry has to be closed first.
    #[must_use = "a command that did not fit is not in the entry"]
    pub fn push(&mut self, command: &[u8]) -> bool {
        if !self.fits(command.len()) {
            return false;
        }
        self.data.reserve(encoded_len_varint(command.len() as u64) + command.len());
        encode_varint(command.len() as u64, &mut self.data);
        self.data.put_slice(command);
        self.commands += 1;
        true
    }

    /// Commands so far.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// The entry's data; the builder is empty afterwards.
    pub fn finish(&mut self) -> Vec<u8> {
        self.commands = 0;
        std::mem::take(&mut self.data)
    }
}

/// The commands of a raft entry, in order, keys and values pointing into `data`. After an error there is nothing more.
pub fn decode_entry(data: Bytes) -> EntryCommands {
    EntryCommands { rest: data }
}

/// Whether this version can apply all commands of a raft entry.
///
/// # Errors
/// What is wrong with the first that it cannot apply.
pub fn check_entry(data: Bytes) -> Result<(), CommandError> {
    decode_entry(data).try_for_each(|command| command.map(drop))
}

/// See [`decode_entry`].
#[derive(Debug, Clone)]
pub struct EntryCommands {
    rest: Bytes,
}

impl EntryCommands {
    fn take(&mut self) -> Result<Command, CommandError> {
        let bytes = usize::try_from(get_varint(&mut self.rest)?).unwrap_or(usize::MAX);
        if bytes > self.rest.len() {
            return Err(CommandError::Damaged { what: "an entry ends inside a command" });
        }
        codec::decode(self.rest.split_to(bytes))
    }
}

impl Iterator for EntryCommands {
    type Item = Result<Command, CommandError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let command = self.take();
        if command.is_err() {
            self.rest = Bytes::new();
        }
        Some(command)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{COMMAND_LEVEL, codec::tests::command},
        *,
    };

    proptest! {
        #[test]
        fn entries_round_trip(commands in vec(command(), 0..20)) {
            let mut entry = EntryBuilder::new();
            for command in &commands {
                prop_assert!(entry.push(&codec::encode(command, COMMAND_LEVEL)));
            }
            prop_assert_eq!(entry.commands(), commands.len());
            let decoded: Result<Vec<_>, _> = decode_entry(Bytes::from(entry.finish())).collect();
            prop_assert_eq!(decoded, Ok(commands));
            prop_assert!(entry.is_empty() && entry.bytes() == 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            decode_entry(Bytes::from(bytes)).for_each(drop);
        }
    }

    #[test]
    fn an_entry_closes_at_its_number_of_commands() {
        let mut entry = EntryBuilder::new();
        for _ in 0..ENTRY_COMMANDS_MAX {
            assert!(entry.push(b"x"));
        }
        assert!(!entry.push(b"x"));
        assert_eq!(entry.commands(), ENTRY_COMMANDS_MAX);
    }

    #[test]
    fn an_entry_closes_at_its_bytes_but_takes_one_larger_command() {
        let mut entry = EntryBuilder::new();
        assert!(entry.push(&vec![0; ENTRY_BYTES_MAX * 2]));
        assert!(!entry.push(b"x"));
        entry.finish();
        assert!(entry.push(&vec![0; ENTRY_BYTES_MAX - 8]));
        assert!(entry.push(b"xxxx") && !entry.push(b"x"));
        assert_eq!(entry.bytes(), ENTRY_BYTES_MAX);
    }

    #[test]
    fn nothing_follows_an_error() {
        let mut commands = decode_entry(Bytes::from_static(&[200, 200, 1, 2, 3]));
        assert!(commands.next().is_some_and(|command| command.is_err()));
        assert!(commands.next().is_none());
    }
}
