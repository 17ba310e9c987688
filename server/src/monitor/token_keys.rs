//! Reads the keys of signed tokens again when their files change.

use std::sync::Arc;

use super::Turns;
use crate::security::{Jwt, RELOAD_INTERVAL};

/// Looks at the files for as long as the server runs.
pub async fn reload(jwt: Arc<Jwt>, turns: Turns) {
    while turns.after(RELOAD_INTERVAL).await {
        let jwt = jwt.clone();
        // It fails only if the runtime is shutting down.
        let _ = tokio::task::spawn_blocking(move || jwt.reload()).await;
    }
}
