//! One sender or reader of iroh-blobs on loopback, without relay, DNS and port mapping, with its store in files.
//!
//! - `iroh-peer seed FILE STORE IP:PORT` prints `READY TICKET` and sends until it is killed.
//! - `iroh-peer read FILE STORE IP:PORT` prints `READY`, reads `GO TICKET`, and prints `DONE` when the verified file is in its place.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use iroh_blobs::api::blobs::{AddPathOptions, ExportMode, ExportOptions, ImportMode};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::ticket::BlobTicket;
use iroh_blobs::{ALPN, BlobFormat, BlobsProtocol};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [role, file, store, bind] = arguments.as_slice() else {
        bail!("usage: iroh-peer seed|read FILE STORE IP:PORT");
    };
    let file = std::path::absolute(PathBuf::from(file))?;
    let bind: SocketAddrV4 = bind.parse()?;
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_ip_transports()
        .bind_addr(bind)?
        .bind()
        .await?;
    let store = FsStore::load(store).await?;
    match role.as_str() {
        "seed" => seed(endpoint, store, file, bind).await,
        "read" => read(endpoint, store, file).await,
        _ => bail!("{role} is neither seed nor read"),
    }
}

/// Sends `file`, which stays where it is, to whoever asks.
async fn seed(endpoint: Endpoint, store: FsStore, file: PathBuf, bind: SocketAddrV4) -> Result<()> {
    let options = AddPathOptions { path: file, mode: ImportMode::TryReference, format: BlobFormat::Raw };
    let tag = store.add_path_with_opts(options).await?;
    let router = Router::builder(endpoint).accept(ALPN, BlobsProtocol::new(&store, None)).spawn();
    let address = EndpointAddr::new(router.endpoint().id()).with_ip_addr(bind.into());
    println!("READY {}", BlobTicket::new(address, tag.hash, tag.format));
    std::future::pending().await
}

/// Fetches what the ticket on stdin names, into `target`.
async fn read(endpoint: Endpoint, store: FsStore, target: PathBuf) -> Result<()> {
    println!("READY");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let ticket: BlobTicket = line.trim().strip_prefix("GO ").context("expected GO")?.parse()?;
    let connection = endpoint.connect(ticket.addr().clone(), ALPN).await?;
    store.remote().fetch(connection, ticket.hash_and_format()).await?;
    // The store gives the file away, rather than copying it.
    let options = ExportOptions { hash: ticket.hash(), mode: ExportMode::TryReference, target };
    store.export_with_opts(options).finish().await?;
    println!("DONE");
    endpoint.close().await;
    store.shutdown().await?;
    Ok(())
}
