//! The built binary against a simulated instance behind TLS: certificates that are wrong, and bodies
//! that are compressed, which the loopback address without TLS does not have.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use musterd::clock::SystemClock;
use musterd::sandbox::{self, Column, Sandbox, Values};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::sync::CancellationToken;

use super::course::Course;
use super::matrix::Promise::{self, P1, P2, P3, P4, P5, P9, P11};
use crate::harness::{Auth, Home, Instance, Ran, Running, TIME_LIMIT, text};

/// This machine, in a form in which the binary takes it for a host like any other: it asks for compressed
/// bodies.
const HOST: &str = "::ffff:127.0.0.1";

const USERS: usize = 60;

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Expired,
    NotYetValid,
    WrongName,
    /// By nobody but itself.
    SelfSigned,
    /// By an authority that this machine does not know.
    UnknownIssuer,
}

/// A case against the built binary: a baseline, real leavers, syncs while something is wrong, and syncs
/// when it is right again.
pub(super) struct ByBinary {
    wrong: Wrong,
    /// What each sync that fails says.
    says: &'static str,
}

enum Wrong {
    Certificate(Bad),
    Answers(&'static str),
}

impl ByBinary {
    pub(super) fn certificate(bad: Bad) -> Self {
        Self {
            wrong: Wrong::Certificate(bad),
            says: "cannot make a secure connection",
        }
    }

    pub(super) fn answers(script: &'static str, says: &'static str) -> Self {
        Self {
            wrong: Wrong::Answers(script),
            says,
        }
    }
}

impl Course for ByBinary {
    fn run(self, number: u64) -> BTreeSet<Promise> {
        let mut held = BTreeSet::new();
        let server = Server::start(number);
        let ran = server.sync("full");
        assert_eq!(ran.code, Some(0), "{ran}");
        let (seq, watermark) = (server.seq(), server.watermark());

        let ids = server.active();
        let (inactive, deleted) = (&ids[3], &ids[40]);
        assert!(
            server
                .sandbox
                .update(inactive, &Values::new().active(false))
        );
        assert!(server.sandbox.delete(deleted));
        let hired = server
            .sandbox
            .create(&Values::new().with(Column::UserName, "hired.anew"));
        match self.wrong {
            Wrong::Certificate(bad) => server.show(server.certificates.bad(bad)),
            Wrong::Answers(script) => server.fault(script),
        }
        for mode in ["incremental", "full"] {
            let before = server.n_connections.load(Ordering::Relaxed);
            let ran = server.sync(mode);
            assert_eq!(ran.code, Some(1), "{ran}");
            let sync = server.home.last_sync();
            let error = text(&sync, "error").unwrap_or_default();
            assert!(error.contains(self.says), "{error}\n{ran}");
            if matches!(self.wrong, Wrong::Certificate(_)) {
                let n = server.n_connections.load(Ordering::Relaxed) - before;
                assert_eq!(n, 1, "it is final: it is tried once");
                assert!(error.contains("roots"), "what to do about it: {error}");
            }
            let written = (server.seq(), server.watermark());
            assert_eq!(written, (seq, watermark.clone()), "{ran}");
            held.extend([P1, P2]);
            server.home.verify();
            held.extend([P3]);
        }
        if matches!(self.wrong, Wrong::Answers(_)) {
            assert!(server.sandbox.fired().iter().all(|fault| fault.times > 0));
        }

        server.sandbox.set_faults(Vec::new());
        server.show(server.certificates.good());
        for mode in ["incremental", "full"] {
            let ran = server.sync(mode);
            assert_eq!(ran.code, Some(0), "{ran}");
        }
        let left = server
            .home
            .list("SELECT id || ' ' || reason FROM changes WHERE kind = 'deactivate' ORDER BY seq");
        assert_eq!(
            left,
            [format!("{inactive} inactive"), format!("{deleted} gone")]
        );
        assert_eq!(
            server.active(),
            server.home.list("SELECT id FROM active_users ORDER BY id")
        );
        assert!(server.active().contains(&hired));
        let holds: i64 = server.home.one("SELECT count(*) FROM holds");
        let rejects: i64 = server.home.one("SELECT count(*) FROM rejects");
        assert_eq!((holds, rejects), (0, 0));
        held.extend([P5, P9]);
        let last = server.seq();
        let ran = server.sync("full");
        assert_eq!((ran.code, server.seq()), (Some(0), last), "{ran}");
        // That no secret was said was seen at each sync.
        held.extend([P4, P11]);
        server.home.verify();
        held
    }
}

/// All five are final, each says what to do, and nothing is tried twice (threat T5). Expired is a case of
/// its own.
#[test]
fn a_certificate_that_is_wrong_is_final_whatever_is_wrong_with_it() {
    for (number, bad) in (400..).zip([
        Bad::NotYetValid,
        Bad::WrongName,
        Bad::SelfSigned,
        Bad::UnknownIssuer,
    ]) {
        let promises = ByBinary::certificate(bad).run(number);
        assert!(promises.contains(&P1), "{bad:?}");
    }
}

/// A simulated instance behind TLS, and a home of the binary that links it.
struct Server {
    sandbox: Sandbox,
    home: Home,
    certificates: Certificates,
    shown: Arc<Mutex<Arc<ServerConfig>>>,
    n_connections: Arc<AtomicU64>,
    _runtime: Runtime,
}

impl Server {
    fn start(seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let options = sandbox::Options {
            users: USERS,
            seed,
            ..sandbox::Options::default()
        };
        let sandbox = Sandbox::new(options, Arc::new(SystemClock));
        let home = Home::new(&[]);
        let certificates = Certificates::new(home.path());
        let shown = Arc::new(Mutex::new(certificates.good()));
        let n_connections = Arc::new(AtomicU64::new(0));
        let port = runtime.block_on(async {
            let plain = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let behind = plain.local_addr().unwrap();
            tokio::spawn(sandbox::serve(
                plain,
                sandbox.clone(),
                CancellationToken::new(),
            ));
            let front = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let port = front.local_addr().unwrap().port();
            let (shown, n) = (Arc::clone(&shown), Arc::clone(&n_connections));
            tokio::spawn(async move {
                loop {
                    let (stream, _) = front.accept().await.unwrap();
                    n.fetch_add(1, Ordering::Relaxed);
                    let config = Arc::clone(&shown.lock().unwrap());
                    tokio::spawn(carry(stream, config, behind));
                }
            });
            port
        });
        let rules = sandbox.auth();
        home.configure(&[Instance {
            name: "acme",
            url: &format!("https://[{HOST}]:{port}"),
            scim_path: "/api/now/scim",
            auth: Auth::ClientCredentials {
                client_id: &rules.client_id,
                client_secret: &rules.client_secret,
            },
            page_size: 20,
            more: "",
        }]);
        Self {
            sandbox,
            home,
            certificates,
            shown,
            n_connections,
            _runtime: runtime,
        }
    }

    /// From the next connection on.
    fn show(&self, config: Arc<ServerConfig>) {
        *self.shown.lock().unwrap() = config;
    }

    fn fault(&self, script: &str) {
        let path = self.home.path().join("faults.toml");
        std::fs::write(&path, script).unwrap();
        self.sandbox
            .set_faults(sandbox::read_script(&path).unwrap());
    }

    /// One sync by the built binary, on a machine that knows our authority. Nothing that it says is
    /// secret.
    fn sync(&self, mode: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_musterd"));
        command
            .args(["sync", "--mode", mode, "--json"])
            .env_clear()
            .env("HOME", self.home.path())
            .env("MUSTERD_CONFIG", self.home.config_path())
            .env("SSL_CERT_FILE", &self.certificates.root)
            .current_dir(self.home.path());
        let ran = Running::start(command).finish(TIME_LIMIT);
        let secrets = [
            self.sandbox.auth().client_secret,
            self.sandbox.issue_token(),
        ];
        for secret in secrets {
            assert!(
                !ran.stdout.contains(&secret) && !ran.stderr.contains(&secret),
                "{ran}"
            );
        }
        ran
    }

    fn seq(&self) -> i64 {
        self.home.one("SELECT last_seq FROM feed")
    }

    fn watermark(&self) -> Option<String> {
        self.home.one("SELECT watermark FROM sources")
    }

    /// Who is active on the instance, by id.
    fn active(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.sandbox.with_directory(|directory| {
            let active = directory.users().iter().filter(|user| user.active);
            active.map(|user| user.sys_id.to_string()).collect()
        });
        ids.sort();
        ids
    }
}

/// Carries one connection to what is behind; an error is for the client to see.
async fn carry(stream: TcpStream, config: Arc<ServerConfig>, behind: SocketAddr) {
    let Ok(mut client) = TlsAcceptor::from(config).accept(stream).await else {
        return;
    };
    if let Ok(mut server) = TcpStream::connect(behind).await {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

/// An authority that the binary is told to trust, and what it issues.
struct Certificates {
    /// The authority's own certificate.
    root: PathBuf,
    authority: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new(folder: &Path) -> Self {
        let (certificate, authority) = authority();
        let root = folder.join("root.pem");
        std::fs::write(&root, certificate).unwrap();
        Self { root, authority }
    }

    fn good(&self) -> Arc<ServerConfig> {
        self.issue(&CertificateParams::new([HOST.to_owned()]).unwrap())
    }

    fn bad(&self, bad: Bad) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        match bad {
            Bad::Expired => {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
            Bad::NotYetValid => {
                params.not_before = date_time_ymd(2120, 1, 1);
                params.not_after = date_time_ymd(2121, 1, 1);
            }
            Bad::WrongName => {
                params = CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
            }
            Bad::SelfSigned => {
                let key = KeyPair::generate().unwrap();
                let certificate = params.self_signed(&key).unwrap();
                return config(&certificate, &key);
            }
            Bad::UnknownIssuer => {
                let key = KeyPair::generate().unwrap();
                let certificate = params.signed_by(&key, &authority().1).unwrap();
                return config(&certificate, &key);
            }
        }
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        config(&certificate, &key)
    }
}

/// A new authority, with its certificate as PEM.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, Issuer::new(params, key))
}

fn config(certificate: &rcgen::Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key);
    Arc::new(config.unwrap())
}
