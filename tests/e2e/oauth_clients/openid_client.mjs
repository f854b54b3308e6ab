// openid-client, unchanged: node openid_client.mjs ISSUER CLIENT_ID
import * as client from 'openid-client'

const [issuer, clientId] = process.argv.slice(2)
const say = (line) => console.log(JSON.stringify(line))

const config = await client.discovery(new URL(issuer), clientId, undefined, client.None(), {
  execute: [client.allowInsecureRequests], // the service of the test is on loopback
})
const verifier = client.randomPKCECodeVerifier()
const started = await client.initiateDeviceAuthorization(config, {
  scope: 'cli',
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: 'S256',
})
say({ user_code: started.user_code })
const tokens = await client.pollDeviceAuthorizationGrant(config, started, { code_verifier: verifier })
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token)
say({ before: tokens.refresh_token, refresh_token: refreshed.refresh_token, access_token: refreshed.access_token })
await new Promise((resolve) => process.stdin.once('data', resolve))
await client.tokenRevocation(config, refreshed.refresh_token)
process.exit(0)
