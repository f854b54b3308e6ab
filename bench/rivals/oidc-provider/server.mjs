// The rival: oidc-provider with its device flow (RFC 8628) on Redis, one process.
//
// `PORT=… REDIS_URL=… node server.mjs`. Signing keys are real ones, logging is off, nothing else differs from its
// documentation's example.
import { generateKeyPairSync } from 'node:crypto';
import Provider from 'oidc-provider';
import { RedisAdapter } from './redis-adapter.mjs';

const port = Number(process.env.PORT);
const jwk = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  adapter: RedisAdapter,
  clients: [
    {
      client_id: 'tool',
      token_endpoint_auth_method: 'none',
      application_type: 'native',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  features: { deviceFlow: { enabled: true }, devInteractions: { enabled: false } },
  jwks: { keys: [{ ...jwk, use: 'sig', alg: 'RS256' }] },
  cookies: { keys: ['benchmark'] },
  ttl: { DeviceCode: 86400 },
});

provider.listen(port, '127.0.0.1');
