//! `harness doctor` asks the engine that containers would be started by, not the `docker` program.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

/// What doctor says of Docker with an engine at `socket`, on a machine without a `docker` program.
fn docker(socket: &Path) -> serde_json::Value {
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["doctor", "--format", "json"])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("PATH", "")
        .stdin(Stdio::null())
        .output()
        .expect("the harness");
    assert_eq!(output.status.code(), Some(0));
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut each = all.as_array().expect("a list").iter();
    each.find(|finding| finding["name"] == "Docker").expect("Docker is looked for").clone()
}

/// An engine that knows its version and has no images.
fn serve(listener: &UnixListener) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || {
            let mut lines =
                BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
            while let Some(request) = lines.next() {
                let _headers = lines.by_ref().take_while(|line| !line.is_empty()).count();
                let (status, body) = match request.split(' ').nth(1) {
                    Some(path) if path.ends_with("/version") => ("200 OK", r#"{"Version":"9.8.7"}"#),
                    Some(path) if path.ends_with("/_ping") => ("200 OK", "OK"),
                    _ => ("404 Not Found", r#"{"message":"no such image"}"#),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn the_engine_that_answers_is_the_one_that_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    let nobody = docker(&socket);
    assert_eq!(nobody["present"], false, "{nobody}");
    let remedy = nobody["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("no Docker engine answers") && remedy.contains("--broker embedded"), "{remedy}");

    let listener = UnixListener::bind(&socket).expect("a socket");
    std::thread::spawn(move || serve(&listener));
    let engine = docker(&socket);
    assert_eq!(engine["present"], true, "{engine}");
    let detail = engine["detail"].as_str().expect("a detail");
    assert!(detail.starts_with("engine 9.8.7\n"), "{detail}");
    assert!(detail.contains("docker pull emqx/emqx:5.8.9") && detail.contains("embedded broker"), "{detail}");
}

/// The `docker` program may have been told of an engine that nobody told the harness of.
#[test]
fn an_engine_in_another_context_is_pointed_to() {
    let home = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(home.path().join(".docker")).expect("a folder");
    std::fs::write(home.path().join(".docker/config.json"), r#"{"currentContext":"rootless"}"#)
        .expect("a file");
    let said = |host: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
        command.args(["doctor", "--format", "json"]).env("HOME", home.path()).env("PATH", "");
        command.env_remove("DOCKER_CONFIG").env_remove("DOCKER_CONTEXT").env_remove("DOCKER_HOST");
        command.envs(host.map(|host| ("DOCKER_HOST", host))).stdin(Stdio::null());
        String::from_utf8(command.output().expect("the harness").stdout).expect("JSON")
    };
    let named = said(Some("unix:///there/is/no/engine.sock"));
    assert!(!named.contains("context `"), "whoever names an engine means it: {named}");
    // Where an engine answers at the usual place, there is nothing to point to.
    let unnamed = said(None);
    let answers = unnamed.contains("\"engine ");
    assert_ne!(answers, unnamed.contains("context `rootless`"), "{unnamed}");
}

#[test]
fn an_engine_that_says_nothing_is_given_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("docker.sock");
    // It accepts, and that is all.
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let silent = docker(&socket);
    assert_eq!(silent["present"], false, "{silent}");
    assert!(
        silent["remedy"].as_str().is_some_and(|remedy| remedy.contains("no answer within 2 s")),
        "{silent}"
    );
}
