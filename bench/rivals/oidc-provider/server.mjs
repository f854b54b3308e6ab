// The rival: oidc-provider with its device flow (RFC 8628) on Redis, one process.
//
// `PORT=… REDIS_URL=… node server.mjs`. As in its documentation's example, with real signing keys (ES256, which cost less
// than the default RS256), without logging, and with an interaction that approves at once: the person who sends the form
// with the user code is logged in and has agreed.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';
import { RedisAdapter } from './redis-adapter.mjs';

const port = Number(process.env.PORT);
const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: RedisAdapter,
  clients: [
    {
      client_id: 'tool',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      redirect_uris: [],
      response_types: [],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  jwks: { keys: [{ ...jwk, use: 'sig', alg: 'ES256' }] },
  cookies: { keys: ['benchmark'] },
  ttl: { AccessToken: 3600, DeviceCode: 86400, Grant: 1209600, IdToken: 3600, Interaction: 3600, Session: 1209600 },
});

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { grantId, params, session } = await provider.interactionDetails(ctx.req, ctx.res);
  const accountId = session?.accountId ?? 'person';
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  ctx.respond = false; // `interactionFinished` answers
  const result = { login: { accountId }, consent: { grantId: await grant.save() } };
  await provider.interactionFinished(ctx.req, ctx.res, result);
});

provider.listen(port, '127.0.0.1');
