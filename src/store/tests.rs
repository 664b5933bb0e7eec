//! The store against crashes, full disks, damaged files and its bounds.

mod crashes;
mod files;
mod log;
mod memtable;
