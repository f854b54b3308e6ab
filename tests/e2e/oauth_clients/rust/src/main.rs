// The crate oauth2, unchanged: oauth-client BASE_URL CLIENT_ID
use oauth2::basic::BasicClient;
use oauth2::devicecode::StandardDeviceAuthorizationResponse;
use oauth2::ureq::http_client;
use oauth2::{AuthType, AuthUrl, ClientId, DeviceAuthorizationUrl, Scope, TokenResponse, TokenUrl};
use serde_json::json;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (base, id) = (format!("{}/oauth", arguments[1]), &arguments[2]);
    let client = BasicClient::new(
        ClientId::new(id.clone()),
        None,
        AuthUrl::new(format!("{base}/authorize")).unwrap(), // the crate wants one; nothing is sent there
        Some(TokenUrl::new(format!("{base}/token")).unwrap()),
    )
    .set_device_authorization_url(DeviceAuthorizationUrl::new(format!("{base}/device_authorization")).unwrap())
    .set_auth_type(AuthType::RequestBody);
    let started: StandardDeviceAuthorizationResponse = client
        .exchange_device_code()
        .unwrap()
        .add_scope(Scope::new("cli".into()))
        .request(http_client)
        .expect("device authorization");
    println!("{}", json!({"user_code": started.user_code().secret()}));
    let tokens = client
        .exchange_device_access_token(&started)
        .request(http_client, std::thread::sleep, None)
        .expect("tokens");
    let before = tokens.refresh_token().expect("a refresh token").secret().clone();
    let refreshed = client
        .exchange_refresh_token(tokens.refresh_token().unwrap())
        .request(http_client)
        .expect("refresh");
    let after = refreshed.refresh_token().expect("a new refresh token").secret().clone();
    let access_token = refreshed.access_token().secret();
    println!("{}", json!({"before": before, "refresh_token": after, "access_token": access_token}));
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // The crate revokes at https addresses only, so what it would send is sent by hand.
    let form = [("client_id", id.as_str()), ("token", after.as_str())];
    let answer = ureq::post(&format!("{base}/revoke")).send_form(&form).expect("revoke");
    assert_eq!(answer.status(), 200);
}
