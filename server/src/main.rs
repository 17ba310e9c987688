//! The server's binary: reads flags, starts a [`Server`], tells the init daemon that it serves, and ends when it is told to or when the server fails.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use cairn_server::{
    config::{self, Invocation, LevelControl, Loaded},
    server::Server,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Set by crash tests; see [`Builder::record_syncs`](cairn_server::server::Builder::record_syncs).
const RECORD_SYNCS: &str = "CAIRN_TEST_RECORD_SYNCED";

/// Where systemd, or what does as it does, wants to hear that a service is ready: a path, or a name in the kernel's own namespace after `@`.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// How long a server that has failed may take to close what it has open.
const FAILED_END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a start may go on that a signal meets, so that what it has begun ends in order.
const START_END_TIMEOUT: Duration = Duration::from_secs(5);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    abort_on_panic();
    let loaded = match config::load(env::args_os().skip(1), env::vars_os()) {
        Ok(Invocation::Start(loaded)) => *loaded,
        Ok(Invocation::Help) => return print(&config::help_text()),
        Ok(Invocation::Version) => return print(&config::version_text()),
        Err(error) => {
            let _ = fail(&error);
            return ExitCode::from(error.exit_status());
        }
    };
    let level = match config::init_logging(&loaded.config.log) {
        Ok(level) => level.following(&loaded),
        Err(error) => return fail(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(serve(loaded, level)) {
        Ok(signal) => end_by(signal),
        Err(error) => {
            tracing::error!(error = %error, "the server ends");
            fail(&error)
        }
    }
}

/// Serves until a signal ends it, and gives that signal.
async fn serve(loaded: Loaded, level: LevelControl) -> anyhow::Result<SignalKind> {
    raise_file_limit();
    // Those that come from the configuration itself are logged when the server starts.
    let later = loaded.config.validate().map_or(0, |notices| notices.len());
    for notice in loaded.notices.iter().take(loaded.notices.len().saturating_sub(later)) {
        notice.log();
    }
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            level.reload();
        }
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %loaded.config.data_dir().display(), "starting");
    let builder = Server::builder().config(loaded.config).record_syncs(env::var_os(RECORD_SYNCS).is_some());
    let mut starting = pin!(builder.start());
    let server = tokio::select! {
        started = starting.as_mut() => started?,
        signal = signals.next() => {
            tracing::info!("stopping on a signal");
            tokio::select! {
                // A start that waits for other members ends with the process.
                started = tokio::time::timeout(START_END_TIMEOUT, starting) => if let Ok(Ok(server)) = started {
                    server.shutdown().await;
                },
                _ = signals.next() => {}
            }
            return Ok(signal);
        }
    };
    if let Some(audit) = server.audit() {
        let mut hangups = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                audit.reopen();
            }
        });
    }
    let ready_then_failed = async {
        if server.ready().await {
            tell_init_daemon("READY=1");
        }
        server.wait().await
    };
    let told = tokio::select! {
        failed = ready_then_failed => Err(failed),
        signal = signals.next() => Ok(signal),
    };
    match told {
        Ok(signal) => {
            tracing::info!("stopping on a signal");
            tell_init_daemon("STOPPING=1");
            tokio::select! {
                () = server.shutdown() => Ok(signal),
                // Whoever asks twice is in a hurry.
                again = signals.next() => Ok(again),
            }
        }
        Err(failed) => {
            // Nothing was acknowledged since, and nothing more can be saved: what is on disk is what a restart begins with.
            // But RocksDB's threads must have ended when the process does, or they meet what its exit has already destroyed.
            if tokio::time::timeout(FAILED_END_TIMEOUT, server.shutdown()).await.is_err() {
                tracing::warn!("the server's threads do not end; ending without them");
            }
            Err(failed.map_or_else(|| anyhow::anyhow!("server stopped"), anyhow::Error::new))
        }
    }
}

/// The signals that end the server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}

/// Ends the process as if it had not caught the signal, as etcd does: whoever waits for it sees what ended it. The first process of a container cannot be
/// ended that way.
fn end_by(signal: SignalKind) -> ExitCode {
    if std::process::id() != 1
        && let Err(error) = signal_hook::low_level::emulate_default_handler(signal.as_raw_value())
    {
        tracing::warn!(%error, "cannot end by the signal");
    }
    ExitCode::SUCCESS
}

/// Tells what started this process, if it wants to know (`Type=notify` of systemd), how far it is.
fn tell_init_daemon(state: &str) {
    let Some(socket) = env::var_os(NOTIFY_SOCKET).filter(|socket| !socket.is_empty()) else { return };
    match notify(&socket, state) {
        Ok(()) => tracing::info!(state, "told the init daemon"),
        Err(error) => tracing::warn!(%error, ?socket, state, "cannot tell the init daemon"),
    }
}

fn notify(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    // One that does not read what it asked for is no reason to wait.
    from.set_nonblocking(true)?;
    from.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// A panic is a defect; going on with half a server would hide it. The log that a restart begins with is unharmed.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Every connection is an open file: takes what the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("cairn: {error}");
    ExitCode::FAILURE
}
