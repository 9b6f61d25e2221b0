//! A node of this process, and the ways in which others can ask it.

use std::net::{IpAddr, TcpListener};
use std::rc::Rc;

use serde_json::{Value, json};

use crate::api::{self, ApiError, Scope};
use crate::exit::{Exit, Failure};
use crate::http::Backend;
use crate::http::listen::{AddressFile, ControlSocket, Listener};
use crate::http::server::Server;
use crate::http::token::Access;
use crate::node::Executor;
use crate::service::{Log, Service};

/// Where the API listens beside the control socket.
pub(crate) struct Wish {
    /// `None`: loopback.
    pub(crate) host: Option<IpAddr>,
    /// `None`: the usual one if it is free, or else any.
    pub(crate) port: Option<u16>,
    /// Sockets that a service manager handed over, which take the place of both.
    pub(crate) sockets: Vec<TcpListener>,
    /// Names by which proxies call this node.
    pub(crate) allowed_hosts: Vec<String>,
}

/// A node that answers on its control socket, and on TCP where that was wished.
pub(crate) struct Host {
    pub(crate) service: Service,
    server: Server<Service>,
    _control: ControlSocket,
    _address: Option<AddressFile>,
}

impl Host {
    pub(crate) fn open(executor: &Executor, service: Service, wish: Option<Wish>) -> Result<Self, Failure> {
        let dir = service.node().dir().to_owned();
        let (control, listener) = ControlSocket::bind(&dir)?;
        let mut listeners = vec![listener];
        let mut allowed_hosts = Vec::new();
        if let Some(wish) = wish {
            if wish.sockets.is_empty() {
                listeners.push(Listener::bind(wish.host, wish.port)?);
            }
            for socket in wish.sockets {
                let adopted = Listener::adopt(socket.into());
                listeners.push(adopted.map_err(|error| {
                    let message = format!("cannot listen on a socket that was handed over: {error}");
                    Failure::new(Exit::Other, message)
                })?);
            }
            allowed_hosts = wish.allowed_hosts;
        }
        let is_open = listeners.len() > 1;
        let address = is_open.then(|| AddressFile::write(&dir, &listeners)).transpose()?;
        if let Some(addr) = listeners.iter().find_map(Listener::local_addr) {
            service.set_api(addr);
        }
        let access = Rc::new(Access::open(&dir)?);
        service.set_access(access.clone());
        let server = Server::start(executor, Rc::new(service.clone()), access, allowed_hosts, listeners);
        Ok(Self { service, server, _control: control, _address: address })
    }

    /// Ends the node; who asks it then is told that it is gone.
    pub(crate) async fn end(self) {
        self.server.close().await;
        self.service.end().await;
    }
}

impl Backend for Service {
    async fn call(&self, scope: Scope, method: &str, params: Value) -> Result<Value, ApiError> {
        api::dispatch(self, scope, method, params).await
    }

    fn log(&self) -> &Log {
        Self::log(self)
    }

    fn beat(&self) -> Value {
        json!({ "mode": api::Mode::Direct, "enforcement": "none" })
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
    }

    fn is_ready(&self) -> bool {
        self.node().store().check_home().is_ok()
    }
}
