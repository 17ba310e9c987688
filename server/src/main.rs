//! The server's binary: reads flags, starts a [`Server`], and ends when it is told to or when the server fails.

use std::{process::ExitCode, time::Duration};

use cairn_server::{
    config::{self, Invocation, Loaded},
    server::Server,
};
use tokio::signal::unix::{SignalKind, signal};

/// Set by crash tests; see [`Builder::record_syncs`](cairn_server::server::Builder::record_syncs).
const RECORD_SYNCS: &str = "CAIRN_TEST_RECORD_SYNCED";

/// How long a server that has failed may take to close what it has open.
const FAILED_END_TIMEOUT: Duration = Duration::from_secs(10);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    abort_on_panic();
    let loaded = match config::load(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Invocation::Start(loaded)) => *loaded,
        Ok(Invocation::Help) => return print(&config::help_text()),
        Ok(Invocation::Version) => return print(&config::version_text()),
        Err(error) => return fail(&error),
    };
    if let Err(error) = config::init_logging(&loaded.config.log) {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(serve(loaded)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "the server ends");
            fail(&error)
        }
    }
}

async fn serve(loaded: Loaded) -> anyhow::Result<()> {
    raise_file_limit();
    // Those that come from the configuration itself are logged when the server starts.
    let later = loaded.config.validate().map_or(0, |notices| notices.len());
    for notice in loaded.notices.iter().take(loaded.notices.len().saturating_sub(later)) {
        notice.log();
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), data_dir = %loaded.config.data_dir().display(), "starting");
    let builder = Server::builder().config(loaded.config).record_syncs(std::env::var_os(RECORD_SYNCS).is_some());
    let server = tokio::select! {
        started = builder.start() => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let failed = tokio::select! {
        failed = server.wait() => failed,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    if let Some(error) = failed {
        // Nothing was acknowledged since, and nothing more can be saved: what is on disk is what a restart begins with.
        // But RocksDB's threads must have ended when the process does, or they meet what its exit has already destroyed.
        if tokio::time::timeout(FAILED_END_TIMEOUT, server.shutdown()).await.is_err() {
            tracing::warn!("the server's threads do not end; ending without them");
        }
        return Err(anyhow::Error::new(error));
    }
    tracing::info!("stopping on a signal");
    tokio::select! {
        () = server.shutdown() => Ok(()),
        // Whoever asks twice is in a hurry.
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
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
