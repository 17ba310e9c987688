//! What every layer may know: a leaf that imports no other module of this crate.

mod name;
mod url;
mod version;

pub(crate) use self::url::join;
pub use self::{
    name::check_name,
    url::{ListenAddr, Place, Scheme, Url, listen_addrs},
    version::{API, API_VERSION, STORAGE_VERSION, understands},
};
