//! What commands say of themselves at length.

pub(super) const DATASCALE_LONG: &str =
    "The memory is that of the member at the first endpoint, as its metrics tell it.";

pub(super) const PUT_LONG: &str = "Puts the given key into the store.

When <value> begins with '-', <value> is interpreted as a flag.
Insert '--' for workaround:

$ put <key> -- <value>
$ put -- <key> <value>

If <value> isn't given as a command line argument and '--ignore-value' is not specified,
this command tries to read the value from standard input.

For example,
$ cat file | put <key>
will store the content of the file to <key>.";

pub(super) const TXN_LONG: &str =
    "Reads conditions and requests from standard input and applies them as one atomic transaction:
the conditions, an empty line, the requests for the case that all conditions hold, an empty line,
the requests for the case that one does not, an empty line.

For example,
$ txn -i
compares:
mod(\"key1\") > \"0\"

success requests (get, put, del):
put key1 \"overwrote-key1\"

failure requests (get, put, del):
put key1 \"created-key1\"
put key2 \"some extra key\"

A condition compares mod, create, version, value or lease (in hexadecimal) of a key with =, !=, < or >.";

pub(super) const STATUS_LONG: &str =
    "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.
The items in the lists are endpoint, ID, version, storage version, db size, in use, percentage not in use, quota,
is leader, is learner, raft term, raft index, raft applied index, errors, downgrade target version, downgrade enabled.";

pub(super) const MEMBER_LIST_LONG: &str =
    "When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.
The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.";

pub(super) const COMPLETION_LONG: &str = "Prints a script that completes commands and flags in the given shell.

bash:        source <(cairnctl completion bash)
zsh:         cairnctl completion zsh > \"${fpath[1]}/_cairnctl\"
fish:        cairnctl completion fish | source
powershell:  cairnctl completion powershell | Out-String | Invoke-Expression";

pub(super) const HELP_LONG: &str = "Explains the program, or the command that is named behind it.";
