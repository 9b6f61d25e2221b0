//! Answers about identities: files in `identities/` of the node's folder.

use std::fs;
use std::path::{Path, PathBuf};

use megatorrent_core::identity::Identity;
use megatorrent_core::uri::ChannelUri;

use super::{check_absolute, check_readable};
use crate::api::{
    Answers, ApiError, ChannelId, CreateIdentity, Done, ExportIdentity, GetIdentities, Identities,
    IdentityInfo, ImportIdentity,
};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::service::Service;
use crate::service::backup;

/// Identities that are listed; further files are left out.
const LISTED_MAX: usize = 1_000;
const FOLDER: &str = "identities";

impl Service {
    fn identities_dir(&self) -> PathBuf {
        self.0.home.join(FOLDER)
    }

    /// The identity of a channel, where the node's folder has it.
    pub(in crate::service) async fn identity_of(&self, channel: &ChannelId) -> Option<Identity> {
        let (dir, key) = (self.identities_dir(), channel.0);
        let all = smol::unblock(move || all(&dir)).await;
        all.into_iter().map(|(identity, _)| identity).find(|it| it.public_key() == key)
    }
}

fn info(identity: &Identity, file: &Path) -> IdentityInfo {
    let public_key = identity.public_key();
    let uri = ChannelUri { public_key, read_key: None, bootstrap: Vec::new() };
    IdentityInfo {
        channel: ChannelId(public_key),
        uri: uri.to_public_string(),
        file: file.display().to_string(),
        has_read_key: identity.read_key().is_some(),
    }
}

/// Stores an identity under its public key, never over another one.
fn keep(dir: &Path, identity: &Identity) -> Result<IdentityInfo, Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .create(dir)
        .map_err(|error| Failure::file("cannot create", dir, &error))?;
    let file = dir.join(format!("{}.json", identity.public_key()));
    files::write_new(&file, &identity.to_json())
        .map_err(|error| Failure::file("cannot write", &file, &error))?;
    Ok(info(identity, &file))
}

/// The identities in a folder, in the order of their names. A file that is none is left alone.
fn all(dir: &Path) -> Vec<(Identity, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().take(LISTED_MAX).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
    paths.sort();
    paths.into_iter().filter_map(|path| Some((files::read_identity(&path).ok()?, path))).collect()
}

impl Answers<GetIdentities> for Service {
    async fn answer(&self, _: GetIdentities) -> Result<Identities, ApiError> {
        let dir = self.identities_dir();
        let found = smol::unblock(move || all(&dir).iter().map(|(it, file)| info(it, file)).collect()).await;
        Ok(Identities { identities: found })
    }
}

impl Answers<CreateIdentity> for Service {
    async fn answer(&self, _: CreateIdentity) -> Result<IdentityInfo, ApiError> {
        let dir = self.identities_dir();
        let made = smol::unblock(move || {
            keep(&dir, &Identity::new(&files::random_secret()?, Some(files::random_secret()?)))
        });
        Ok(made.await?)
    }
}

impl Answers<ImportIdentity> for Service {
    async fn answer(&self, call: ImportIdentity) -> Result<IdentityInfo, ApiError> {
        check_readable(&call.file).await?;
        let dir = self.identities_dir();
        let imported = smol::unblock(move || {
            let file = Path::new(&call.file);
            let identity = match &call.passphrase {
                Some(passphrase) => backup::open(&files::read_secret_text(file)?, passphrase)?,
                None => files::read_identity(file)?,
            };
            keep(&dir, &identity)
        });
        Ok(imported.await?)
    }
}

impl Answers<ExportIdentity> for Service {
    async fn answer(&self, call: ExportIdentity) -> Result<Done, ApiError> {
        check_absolute(&call.file)?;
        let dir = self.identities_dir();
        let exported = smol::unblock(move || {
            let file = PathBuf::from(&call.file);
            let found = all(&dir).into_iter().find(|(it, _)| it.public_key() == call.channel.0);
            let (identity, _) = found.ok_or_else(|| {
                let message = format!("there is no identity for {} in {}", call.channel, dir.display());
                Failure::new(Exit::NotFound, message)
            })?;
            files::write_new(&file, &backup::seal(&identity, &call.passphrase)?)
                .map_err(|error| Failure::file("cannot write", &file, &error))
        });
        exported.await?;
        Ok(Done {})
    }
}
