//! What networks and stores do to the product, between it and a real S3 server: every operation under every fault ends
//! in success or in the right error, within its budget, and what was acknowledged stays.

mod answers;
mod backups;
mod lab;
mod liars;
mod recovery;
mod split_brain;
mod table;
mod wal;
