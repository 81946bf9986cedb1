//! Keys, and new archives.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Do not encrypt, ever
    #[arg(long, conflicts_with_all = ["recipient", "generate_identity"])]
    pub no_encryption: bool,
    /// Who can read what is written (age1…); also WALARCHIVE_RECIPIENTS
    // Not parsed here: clap repeats what it refuses, and this might be a secret key by mistake.
    #[arg(long, value_name = "RECIPIENT")]
    pub recipient: Vec<String>,
    /// Make a key, keep its secret half in FILE and use its public half
    #[arg(long, value_name = "FILE")]
    pub generate_identity: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key; its secret half goes to FILE (or standard output), its public half is printed
    Generate {
        /// Where the secret half goes
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// A writer's key, which signs what is stored and opens nothing
        #[arg(long)]
        writer: bool,
    },
    /// Give what is stored to other readers: nobody else can open it then
    Rotate(RotateArgs),
    /// Print the public half of the keys in FILE
    Show {
        /// A file with secret keys
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Who is to read it, instead of the recipients that are set
    #[arg(long, value_name = "age1…")]
    pub recipient: Vec<String>,
    /// Sign what nobody signed, too, with the writer's key that is set: take it as one's own
    #[arg(long)]
    pub sign_unsigned: bool,
    /// Only say what it costs
    #[arg(long)]
    pub dry_run: bool,
    /// Objects that are changed at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
}
