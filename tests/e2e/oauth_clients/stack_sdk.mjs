// @stackframe/js, unchanged: node stack_sdk.mjs BASE_URL PROJECT_ID [PUBLISHABLE_CLIENT_KEY]
import { createInterface } from 'node:readline'
import { StackClientApp } from '@stackframe/js'

const [baseUrl, projectId, publishableClientKey] = process.argv.slice(2)
const say = (line) => console.log(JSON.stringify(line))
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
const newApp = () =>
  new StackClientApp({ baseUrl, projectId, publishableClientKey, tokenStore: null, noAutomaticPrefetch: true })
// A store without an access token: the SDK has to refresh before it asks for anything.
const stored = (refreshToken) => ({ tokenStore: { accessToken: null, refreshToken } })

const loggedIn = await newApp().promptCliLogin({
  appUrl: 'https://app.example',
  waitTimeMillis: 200,
  promptLink: (url, code) => say({ login_code: code ?? new URL(url).searchParams.get('login_code') }),
})
if (loggedIn.status !== 'ok') throw loggedIn.error
const refreshToken = loggedIn.data
const app = newApp()
const user = await app.getUser(stored(refreshToken))
const sessions = await user.getActiveSessions()
const { accessToken } = await user.getAuthJson()
const again = await (await newApp().getUser(stored(refreshToken))).getAuthJson()
say({
  refresh_token: refreshToken,
  id: user.id,
  sessions: sessions.map((session) => session.isCurrentSession),
  is_refreshed: accessToken !== again.accessToken,
  is_kept: again.refreshToken === refreshToken,
})
await lines.next()
await user.signOut({ redirectUrl: 'https://app.example' })
say({ after: await newApp().getUser(stored(refreshToken)) })
process.exit(0)
