// The payment service of the article, on nothing but what Node.js brings.
//
// It takes events on POST /events, verifies both signatures over the raw body, handles both versions of
// order.created, and publishes payment.initiated to its own sidecar with fetch. What it does is printed as JSON lines.
import http from 'node:http';
import crypto from 'node:crypto';

const secret = Buffer.from(process.env.APP_SECRET.replace(/^whsec_/, ''), 'base64');
const outbox = process.env.OUTBOX_URL;
const [host, port] = process.env.LISTEN.split(':');
const handled = new Set(); // in a real service: a unique index, in the transaction of the work itself

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

function same(a, b) {
  const x = Buffer.from(a ?? ''), y = Buffer.from(b);
  return x.length === y.length && crypto.timingSafeEqual(x, y);
}

function verify(headers, body) {
  const plain = 'sha256=' + crypto.createHmac('sha256', secret).update(body).digest('hex');
  const signed = crypto.createHmac('sha256', secret)
    .update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`).update(body).digest('base64');
  return same(headers['x-event-signature'], plain)
    && headers['webhook-signature'].split(' ').some((s) => same(s, 'v1,' + signed));
}

async function publish(type, data, cause) {
  const answer = await fetch(outbox + '/outbox', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Correlation-ID': cause.metadata.correlationId },
    body: JSON.stringify({ id: 'pay_' + cause.id, type, key: data.orderId, data, metadata: { causationId: cause.id } }),
  });
  say({ published: type, status: answer.status, answer: await answer.json() });
}

async function handleOrderCreated(event) {
  const order = event.data;
  const address = order.shippingAddress || null; // both versions
  say({ handled: event.type, id: event.id, version: event.version, orderId: order.orderId, total: order.total,
    city: address && address.city, correlationId: event.metadata.correlationId, userId: event.metadata.userId ?? null });
  await publish('payment.initiated', { paymentId: 'pi_' + order.orderId, orderId: order.orderId, amount: order.total }, event);
}

const server = http.createServer((req, res) => {
  const parts = [];
  req.on('data', (part) => parts.push(part));
  req.on('end', async () => {
    const body = Buffer.concat(parts);
    if (req.method !== 'POST' || req.url !== '/events') return res.writeHead(404).end();
    if (!verify(req.headers, body)) {
      say({ badSignature: req.headers['x-event-id'] });
      return res.writeHead(401).end();
    }
    const event = JSON.parse(body);
    res.writeHead(200, { 'Content-Type': 'application/json' }).end('{"received":true}');
    if (handled.has(event.id)) return say({ repeat: event.id });
    handled.add(event.id);
    try {
      if (event.type === 'order.created') await handleOrderCreated(event);
      else say({ unhandled: event.type });
    } catch (err) {
      say({ error: String(err) });
    }
  });
});
server.listen(Number(port), host, () => say({ listening: port }));
