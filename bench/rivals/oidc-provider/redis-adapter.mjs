// oidc-provider's storage on Redis: a value per model, an index per user code and uid, a list per grant. It sends the
// commands that the adapter in the project's examples sends.
import Redis from 'ioredis';

const redis = new Redis(process.env.REDIS_URL, { keyPrefix: 'oidc:' });

const CONSUMABLE = new Set(['AuthorizationCode', 'RefreshToken', 'DeviceCode', 'BackchannelAuthenticationRequest']);
const OF_A_GRANT = new Set([...CONSUMABLE, 'AccessToken']);

export class RedisAdapter {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    const key = this.#key(id);
    const batch = redis.multi();
    if (CONSUMABLE.has(this.model)) batch.hset(key, { payload: JSON.stringify(payload) });
    else batch.set(key, JSON.stringify(payload));
    if (expiresIn) batch.expire(key, expiresIn);
    if (OF_A_GRANT.has(this.model) && payload.grantId) {
      const grant = `grant:${payload.grantId}`;
      batch.rpush(grant, key);
      if (expiresIn > (await redis.ttl(grant))) batch.expire(grant, expiresIn);
    }
    if (payload.userCode) batch.set(`userCode:${payload.userCode}`, id, 'EX', expiresIn);
    if (payload.uid) batch.set(`uid:${payload.uid}`, id, 'EX', expiresIn);
    await batch.exec();
  }

  async find(id) {
    const key = this.#key(id);
    if (!CONSUMABLE.has(this.model)) {
      const text = await redis.get(key);
      return text ? JSON.parse(text) : undefined;
    }
    const { payload, ...rest } = await redis.hgetall(key);
    return payload ? { ...rest, ...JSON.parse(payload) } : undefined;
  }

  async findByUid(uid) {
    return this.find(await redis.get(`uid:${uid}`));
  }

  async findByUserCode(userCode) {
    return this.find(await redis.get(`userCode:${userCode}`));
  }

  async consume(id) {
    await redis.hset(this.#key(id), 'consumed', Math.floor(Date.now() / 1000));
  }

  async destroy(id) {
    await redis.del(this.#key(id));
  }

  async revokeByGrantId(grantId) {
    const grant = `grant:${grantId}`;
    const keys = await redis.lrange(grant, 0, -1);
    await redis.del(...keys, grant);
  }

  #key(id) {
    return `${this.model}:${id}`;
  }
}
