//! In the place of logs, in a program that was built without the feature `store`: there is none.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt};

use super::Change;
use crate::runtime::Handle;

/// The rows of a file.
pub(crate) type Rows = HashMap<Vec<u8>, Vec<u8>>;

/// Nothing is written.
pub(crate) enum Log {}

/// No file.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) rows: Rows,
    pub(crate) warning: Option<String>,
}

impl Log {
    /// Opens no file.
    pub(crate) fn open(path: &Path, _: &Handle) -> Result<Opened, String> {
        Err(format!("{}: this binary was built without the feature store", path.display()))
    }

    pub(crate) fn open_later(path: PathBuf, runtime: &Handle) -> BoxFuture<'static, Result<Opened, String>> {
        futures::future::ready(Self::open(&path, runtime)).boxed()
    }

    pub(crate) fn place(&self) -> &Path {
        match *self {}
    }

    pub(crate) fn bytes(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn commit_now(&mut self, _: &[Change]) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn start(&mut self, _: Vec<Change>) -> bool {
        match *self {}
    }

    pub(crate) fn poll(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(crate) async fn close(self, _: Vec<Change>) {
        match self {}
    }
}
