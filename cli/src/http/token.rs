//! Who may ask: the token in the node's folder, those derived from it, login codes, and the sessions of browsers.
//!
//! One secret is kept, `DIR/api-token`: the token with the scope admin. Those with lesser scopes follow from it, so that showing one
//! needs no storage and rotating replaces all. Codes and sessions live in memory.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding};
use event_listener::Event as Changed;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::limits::{CODE_TIME, CODES_MAX, SESSION_TIME, SESSIONS_MAX};
use crate::api::{LoginLink, Scope};
use crate::exit::{Exit, Failure};
use crate::files;

/// The file of the token with the scope admin, in the node's folder.
pub(crate) const TOKEN_FILE: &str = "api-token";
/// In front of each token, so that a human, and a scanner for secrets, knows one.
const PREFIX: &str = "mt_";
/// BLAKE3's contexts: for tokens with lesser scopes, and for the cookie's name.
const READ_CONTEXT: &str = "megatorrent 2026-11 api token, scope read";
const CONTROL_CONTEXT: &str = "megatorrent 2026-11 api token, scope control";
const COOKIE_CONTEXT: &str = "megatorrent 2026-11 api cookie name";

type Secret = Zeroizing<[u8; 32]>;

/// The tokens of one node: the admin's secret, and what follows from it.
struct Tokens {
    admin: Secret,
    control: Secret,
    read: Secret,
    /// Browsers send cookies to every port of a host: the name keeps nodes on one machine apart.
    cookie: String,
}

impl Tokens {
    fn new(admin: Secret) -> Self {
        let derive = |context| Secret::new(blake3::derive_key(context, &*admin));
        let name = blake3::derive_key(COOKIE_CONTEXT, &*admin);
        let cookie = format!("megatorrent-{:08x}", u32::from_be_bytes([name[0], name[1], name[2], name[3]]));
        Self { control: derive(CONTROL_CONTEXT), read: derive(READ_CONTEXT), cookie, admin }
    }

    fn of(&self, scope: Scope) -> &Secret {
        match scope {
            Scope::Read => &self.read,
            Scope::Control => &self.control,
            Scope::Admin => &self.admin,
        }
    }
}

/// A secret that can be used until some time.
struct Timed {
    secret: Secret,
    scope: Scope,
    until: Instant,
}

/// What decides who may ask. The server asks it, and whoever answers `rotateToken` and `createLoginLink`.
pub(crate) struct Access {
    file: PathBuf,
    tokens: RefCell<Tokens>,
    /// How often the token was rotated: whoever logged in before has to do so again.
    generation: Cell<u64>,
    rotated: Changed,
    codes: RefCell<VecDeque<Timed>>,
    sessions: RefCell<VecDeque<Timed>>,
}

/// A caller who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) scope: Scope,
    pub(super) way: Way,
    generation: u64,
    /// When it ends by itself.
    until: Option<Instant>,
}

/// How a caller logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As this user, on the control socket.
    Control,
    Token,
    Cookie,
}

impl Login {
    pub(super) fn control() -> Self {
        Self { scope: Scope::Admin, way: Way::Control, generation: 0, until: None }
    }
}

impl Access {
    /// Reads the token in the node's folder, and makes it where there is none. Only for whoever holds the folder.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        files::clear(dir);
        let file = dir.join(TOKEN_FILE);
        let admin = match read(&file) {
            Err(failure) if failure.exit == Exit::NotFound => {
                let fresh = random()?;
                files::write_new(&file, &line(&fresh))
                    .map_err(|error| Failure::file("cannot write", &file, &error))?;
                fresh
            }
            read => read?,
        };
        Ok(Self {
            file,
            tokens: RefCell::new(Tokens::new(admin)),
            generation: Cell::new(1),
            rotated: Changed::new(),
            codes: RefCell::default(),
            sessions: RefCell::default(),
        })
    }

    /// The token with this scope.
    #[cfg(test)]
    pub(crate) fn token(&self, scope: Scope) -> Zeroizing<String> {
        text(self.tokens.borrow().of(scope))
    }

    /// Replaces the token: who has an older one, or logged in before, is refused from here on.
    pub(crate) fn rotate(&self) -> Result<(), Failure> {
        let fresh = random()?;
        files::replace(&self.file, &line(&fresh))
            .map_err(|error| Failure::file("cannot write", &self.file, &error))?;
        *self.tokens.borrow_mut() = Tokens::new(fresh);
        self.codes.borrow_mut().clear();
        self.sessions.borrow_mut().clear();
        self.generation.set(self.generation.get() + 1);
        self.rotated.notify(usize::MAX);
        Ok(())
    }

    /// Makes a link that logs a browser in, once.
    pub(crate) fn login_link(&self) -> Result<LoginLink, Failure> {
        let code = remember(&self.codes, CODES_MAX, CODE_TIME, Scope::Admin)?;
        let path = format!("login?code={}", Base64UrlUnpadded::encode_string(&*code));
        Ok(LoginLink { path, valid_secs: CODE_TIME.as_secs() })
    }

    /// Takes a code from a login link; the `Set-Cookie` header of the session that it begins.
    pub(super) fn redeem(&self, code: &str) -> Option<Zeroizing<String>> {
        let code = decode(code)?;
        let position = find(&self.codes.borrow(), &code)?;
        self.codes.borrow_mut().remove(position);
        self.begin_session(Scope::Admin)
    }

    /// Begins a browser's session for whoever has a token; its `Set-Cookie` header.
    pub(super) fn exchange(&self, token: &str) -> Option<Zeroizing<String>> {
        self.begin_session(self.by_token(token)?.scope)
    }

    fn begin_session(&self, scope: Scope) -> Option<Zeroizing<String>> {
        let session = remember(&self.sessions, SESSIONS_MAX, SESSION_TIME, scope).ok()?;
        let (name, value) = (self.cookie_name(), text(&session));
        // Without a path the cookie is for the folder that the browser asked: this works in a subfolder behind a proxy too.
        let seconds = SESSION_TIME.as_secs();
        Some(Zeroizing::new(format!("{}={}; Max-Age={seconds}; HttpOnly; SameSite=Strict", &*name, &*value)))
    }

    /// Who has this token.
    pub(super) fn by_token(&self, token: &str) -> Option<Login> {
        let token = parse(token)?;
        let tokens = self.tokens.borrow();
        // All are compared, so that the time tells nothing.
        let mut found = None;
        for scope in [Scope::Read, Scope::Control, Scope::Admin] {
            if bool::from(tokens.of(scope).ct_eq(&*token)) {
                found = Some(scope);
            }
        }
        found.map(|scope| self.login(scope, Way::Token, None))
    }

    /// Whose session these cookies name: the value of a `Cookie` header.
    pub(super) fn by_cookies(&self, cookies: &str) -> Option<Login> {
        let name = self.cookie_name();
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        let session = parse(pairs.find(|&(key, _)| key == &*name)?.1)?;
        let sessions = self.sessions.borrow();
        let found = sessions.get(find(&sessions, &session)?)?;
        Some(self.login(found.scope, Way::Cookie, Some(found.until)))
    }

    /// Whether a caller who logged in earlier may go on.
    pub(super) fn holds(&self, login: &Login) -> bool {
        login.way == Way::Control
            || (login.generation == self.generation.get()
                && login.until.is_none_or(|until| Instant::now() < until))
    }

    /// Waits until logins end.
    pub(super) async fn rotated(&self) {
        self.rotated.listen().await;
    }

    fn login(&self, scope: Scope, way: Way, until: Option<Instant>) -> Login {
        Login { scope, way, generation: self.generation.get(), until }
    }

    fn cookie_name(&self) -> Ref<'_, str> {
        Ref::map(self.tokens.borrow(), |tokens| tokens.cookie.as_str())
    }
}

/// The token of a node's folder with this scope, also while no node runs there.
pub(crate) fn read_token(dir: &Path, scope: Scope) -> Result<Zeroizing<String>, Failure> {
    Ok(text(Tokens::new(read(&dir.join(TOKEN_FILE))?).of(scope)))
}

fn read(file: &Path) -> Result<Secret, Failure> {
    let found = files::read_secret_text(file)?;
    parse(found.trim()).ok_or_else(|| {
        let message = format!(
            "{} holds no token ({PREFIX} and 43 characters); remove it, and the next start makes one",
            file.display()
        );
        Failure::new(Exit::Integrity, message)
    })
}

fn parse(token: &str) -> Option<Secret> {
    decode(token.strip_prefix(PREFIX)?)
}

fn decode(text: &str) -> Option<Secret> {
    let mut secret = Secret::default();
    let length = Base64UrlUnpadded::decode(text, &mut *secret).ok()?.len();
    (length == secret.len()).then_some(secret)
}

fn text(secret: &Secret) -> Zeroizing<String> {
    let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&**secret));
    Zeroizing::new([PREFIX, &encoded].concat())
}

fn line(secret: &Secret) -> Zeroizing<String> {
    Zeroizing::new([&*text(secret), "\n"].concat())
}

fn random() -> Result<Secret, Failure> {
    let mut secret = Secret::default();
    getrandom::fill(&mut *secret)
        .map_err(|error| Failure::new(Exit::Other, format!("the system gives no random bytes: {error}")))?;
    Ok(secret)
}

/// Makes a secret that can be used for a while, and has it remembered.
fn remember(
    list: &RefCell<VecDeque<Timed>>,
    max: usize,
    time: Duration,
    scope: Scope,
) -> Result<Secret, Failure> {
    let secret = random()?;
    let mut list = list.borrow_mut();
    let now = Instant::now();
    list.retain(|it| it.until > now);
    while list.len() >= max {
        list.pop_front();
    }
    list.push_back(Timed { secret: secret.clone(), scope, until: now + time });
    Ok(secret)
}

fn find(list: &VecDeque<Timed>, secret: &Secret) -> Option<usize> {
    let now = Instant::now();
    list.iter().position(|it| it.until > now && bool::from(it.secret.ct_eq(&**secret)))
}

/// Whether an error says that there is no such file or nobody listens.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_for_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let left = dir.path().join(".mt-a0Bc1D.part");
        std::fs::write(&left, "half of a token").expect("writes");
        let first = Access::open(dir.path()).expect("it opens").token(Scope::Admin);
        assert!(!left.exists(), "what a killed process left is removed");
        assert!(first.starts_with("mt_") && first.len() == 46, "{}", &*first);
        let file = dir.path().join(TOKEN_FILE);
        assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).expect("it reads").trim(), &**first);
        let again = Access::open(dir.path()).expect("it opens");
        assert_eq!(*again.token(Scope::Admin), *first);
        assert_eq!(*read_token(dir.path(), Scope::Read).expect("it reads"), *again.token(Scope::Read));
        std::fs::write(&file, "secret").expect("it is written");
        assert_eq!(Access::open(dir.path()).err().map(|it| it.exit), Some(Exit::Integrity));
    }

    #[test]
    fn each_scope_has_its_token_and_rotation_ends_them_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let access = Access::open(dir.path()).expect("it opens");
        let mut old = Vec::new();
        for scope in [Scope::Read, Scope::Control, Scope::Admin] {
            let login = access.by_token(&access.token(scope)).expect("it is one");
            assert_eq!(login.scope, scope);
            old.push((access.token(scope), login));
        }
        access.rotate().expect("it rotates");
        for (token, login) in old {
            assert!(access.by_token(&token).is_none() && !access.holds(&login));
        }
        for wrong in ["", "mt_", "mt_AAAA", "AAAA", "mt_é"] {
            assert!(access.by_token(wrong).is_none());
        }
        let kept = read_token(dir.path(), Scope::Control).expect("it reads");
        assert_eq!(*kept, *access.token(Scope::Control));
    }

    #[test]
    fn a_code_begins_one_session() {
        let dir = tempfile::tempdir().expect("a folder");
        let access = Access::open(dir.path()).expect("it opens");
        let link = access.login_link().expect("a link").path;
        let code = link.strip_prefix("login?code=").expect("its form");
        let cookie = access.redeem(code).expect("it begins one");
        assert!(access.redeem(code).is_none());
        let pair = cookie.split(';').next().expect("a pair");
        let login = access.by_cookies(&format!("a=b; {pair}")).expect("it is known");
        assert_eq!((login.scope, login.way), (Scope::Admin, Way::Cookie));
        access.rotate().expect("it rotates");
        assert!(access.by_cookies(pair).is_none() && !access.holds(&login));
    }

    #[test]
    fn a_token_begins_a_session_of_its_scope() {
        let dir = tempfile::tempdir().expect("a folder");
        let access = Access::open(dir.path()).expect("it opens");
        let cookie = access.exchange(&access.token(Scope::Read)).expect("it begins one");
        let login = access.by_cookies(cookie.split(';').next().expect("a pair")).expect("it is known");
        assert_eq!((login.scope, login.way), (Scope::Read, Way::Cookie));
        assert!(access.exchange("mt_wrong").is_none());
    }

    #[test]
    fn codes_and_sessions_are_bounded_and_end() {
        let list = RefCell::default();
        let first = remember(&list, 2, Duration::from_mins(1), Scope::Admin).expect("a secret");
        remember(&list, 2, Duration::from_mins(1), Scope::Admin).expect("a secret");
        remember(&list, 2, Duration::ZERO, Scope::Admin).expect("a secret");
        assert!(list.borrow().len() == 2 && find(&list.borrow(), &first).is_none());
        let ended = list.borrow()[1].secret.clone();
        assert!(find(&list.borrow(), &ended).is_none());
    }
}
