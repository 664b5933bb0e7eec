//! In the place of the writer, in a program that was built without the feature `store`: there is none.

use std::{
    path::Path,
    task::{Context, Poll},
    time::Duration,
};

use super::{Change, FileStatus, Report, Sequence, StoreError, memtable::Memtable};
use crate::runtime::Handle;

/// Nothing is written.
pub(super) enum Writer {}

impl Writer {
    /// Opens no file.
    pub(super) fn open(
        path: &Path,
        _: &mut Memtable,
        _: Duration,
        _: &Handle,
    ) -> Result<(Self, Option<String>), StoreError> {
        Err(StoreError::NotCompiled(path.into()))
    }

    pub(super) fn poll(&mut self, _: &mut Memtable, _: &mut Context<'_>) -> Poll<Report> {
        match *self {}
    }

    pub(super) fn durable(&self) -> Sequence {
        match *self {}
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        match *self {}
    }

    pub(super) fn place(&self) -> String {
        match *self {}
    }

    pub(super) fn status(&self, _: usize) -> FileStatus {
        match *self {}
    }

    pub(super) async fn close(self, _: Vec<Change>) {
        match self {}
    }
}
