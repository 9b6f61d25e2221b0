//! A configuration file that is read again while the node runs: what can change at once does, and of the rest it is said that it takes a
//! new start. A file that cannot be read, or is wrong, changes nothing.

use crate::args::{Command, Serve};
use crate::config::{Config, Invocation};
use crate::exit::Failure;
use crate::service::{Changes, Reporter, Service};

/// The configuration file as it was read last.
pub(crate) struct Reload<'a> {
    invocation: &'a Invocation,
    /// As it was at the node's start.
    started: Config,
    config: Config,
    serve: Serve,
}

impl<'a> Reload<'a> {
    /// To be made at the node's start.
    pub(crate) fn new(invocation: &'a Invocation) -> Result<Self, Failure> {
        let config = invocation.config()?.unwrap_or_else(Config::none);
        let serve = serve(invocation, &config)?;
        Ok(Self { invocation, started: config.clone(), config, serve })
    }

    /// Reads the file again and lets the node go by it; says what came of that.
    pub(crate) async fn apply(&mut self, service: &Service) {
        let reporter = Reporter::new(service.log().clone());
        if let Err(failure) = self.try_apply(service, &reporter).await {
            reporter
                .warn(format!("the configuration file is not read again, and nothing is changed: {failure}"));
        }
    }

    async fn try_apply(&mut self, service: &Service, reporter: &Reporter) -> Result<(), Failure> {
        let config = self.invocation.config()?.unwrap_or_else(Config::none);
        let serve = serve(self.invocation, &config)?;
        let changes = self.config.changes(&config);
        let hot: Vec<_> = changes.iter().filter(|knob| knob.is_reloadable).map(|knob| knob.name).collect();
        if !hot.is_empty() {
            let old = &self.serve;
            let (limits, before) = (&serve.limits, &old.limits);
            let rate = |now, before| (now != before).then(|| Changes::rate(now));
            // What is as before may have been changed by a call since.
            let change = Changes {
                upload_bytes_per_sec: rate(limits.upload, before.upload),
                download_bytes_per_sec: rate(limits.download, before.download),
                whole: (limits.whole != before.whole).then_some(limits.whole),
                gateway: (serve.no_gateway != old.no_gateway).then_some(!serve.no_gateway),
            };
            service.reconfigure(change).await?;
        }
        let path = if config.path().as_os_str().is_empty() { self.config.path() } else { config.path() };
        let path = path.display();
        let waiting: Vec<_> =
            self.started.changes(&config).into_iter().filter(|knob| !knob.is_reloadable).collect();
        service.wait_for_restart(waiting.iter().map(|knob| knob.name).collect());
        for knob in waiting.into_iter().filter(|knob| changes.contains(knob)) {
            reporter.warn(format!("{path}: {} has changed: restart to apply", knob.name));
        }
        reporter.note(if changes.is_empty() {
            "the configuration file says what it said before".to_owned()
        } else if hot.is_empty() {
            format!("{path} was read again")
        } else {
            format!("{path} was read again: {} applied", hot.join(", "))
        });
        (self.config, self.serve) = (config, serve);
        Ok(())
    }
}

fn serve(invocation: &Invocation, config: &Config) -> Result<Serve, Failure> {
    match invocation.over(config)?.command {
        Some(Command::Serve(serve)) => Ok(serve),
        _ => unreachable!("only `serve` reads its file again"),
    }
}
