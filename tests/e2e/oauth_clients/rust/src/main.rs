// The crate oauth2, unchanged: oauth-client BASE_URL CLIENT_ID
use oauth2::basic::BasicClient;
use oauth2::devicecode::StandardDeviceAuthorizationResponse;
use oauth2::ureq::http_client;
use oauth2::{
    AuthType, AuthUrl, ClientId, DeviceAuthorizationUrl, RevocationUrl, Scope, StandardRevocableToken, TokenResponse,
    TokenUrl,
};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let base = format!("{}/oauth", arguments[1]);
    let client = BasicClient::new(
        ClientId::new(arguments[2].clone()),
        None,
        AuthUrl::new(format!("{base}/authorize")).unwrap(), // the crate wants one; nothing is sent there
        Some(TokenUrl::new(format!("{base}/token")).unwrap()),
    )
    .set_device_authorization_url(DeviceAuthorizationUrl::new(format!("{base}/device_authorization")).unwrap())
    .set_revocation_uri(RevocationUrl::new(std::env::var("REVOKE_AT").unwrap_or(format!("{base}/revoke"))).unwrap())
    .set_auth_type(AuthType::RequestBody);
    let started: StandardDeviceAuthorizationResponse = client
        .exchange_device_code()
        .unwrap()
        .add_scope(Scope::new("cli".into()))
        .request(http_client)
        .expect("device authorization");
    println!("{}", serde_json::json!({"user_code": started.user_code().secret()}));
    let tokens = client
        .exchange_device_access_token(&started)
        .request(http_client, std::thread::sleep, None)
        .expect("tokens");
    let before = tokens.refresh_token().expect("a refresh token");
    let refreshed = client.exchange_refresh_token(before).request(http_client).expect("refresh");
    let after = refreshed.refresh_token().expect("a new refresh token");
    println!(
        "{}",
        serde_json::json!({
            "before": before.secret(), "refresh_token": after.secret(),
            "access_token": refreshed.access_token().secret(),
        })
    );
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // The crate revokes at https addresses only: what it would send is sent by hand.
    let form = [("client_id", arguments[2].as_str()), ("token", after.secret().as_str())];
    assert_eq!(ureq::post(&format!("{base}/revoke")).send_form(&form).expect("revoke").status(), 200);
    let _ = StandardRevocableToken::from(after.clone());
}
