// A participant of sagas with nothing but an AMQP client: it prints parcel labels, and voids them.
//
//   AMQP_URL   amqp://guest:guest@localhost/ unless set
//   PREFIX     before the names of queues, as MESSAGING_PREFIX has it ("" unless set)
//   JOURNAL    the file that holds what was done: labels.jsonl unless set
//
// Each line of the journal is one transaction, a JSON array of changes: an order's claim, its answer and its
// work stand in the same line, which is on the disk before the answer leaves. A line is there whole or not at all.
"use strict";

const amqp = require("amqplib");
const fs = require("node:fs");
const path = require("node:path");

const AMQP_URL = process.env.AMQP_URL || "amqp://guest:guest@localhost/";
const QUEUE = `${process.env.PREFIX || ""}labels`;
const JOURNAL = path.resolve(process.env.JOURNAL || "labels.jsonl");
const KEEP_CLAIMS_MS = 35 * 24 * 3600 * 1000;

// -- the work: a handler returns its answer and the changes to its own data, and does nothing else

class Refused extends Error {}

const handlers = {
  "print-label": ({ parcel_id, address }) => {
    if (!address) throw new Refused("a parcel needs an address");
    if (labels.has(parcel_id)) throw new Refused("this parcel has a label");
    const label = `L-${parcel_id}`;
    return { reply: { type: "label-printed", body: { label } }, changes: [{ label, parcel_id, state: "printed" }] };
  },
  "void-label": ({ parcel_id }) => {
    const { label } = labels.get(parcel_id);
    return { reply: { type: "label-voided", body: { label } }, changes: [{ label, parcel_id, state: "voided" }] };
  },
};

// -- what is known: read from the journal once, then kept as the journal grows

const inbox = new Map(); // idempotency key -> { at, undone } or { at, answer }
const labels = new Map(); // parcel -> { label, state }
let journal = null;

function apply(change) {
  if (change.key) inbox.set(change.key, change);
  else labels.set(change.parcel_id, change);
}

// Called with the first message, so by the only process that consumes the queue.
function openJournal() {
  const lines = fs.existsSync(JOURNAL) ? fs.readFileSync(JOURNAL, "utf8").split("\n") : [""];
  lines.pop(); // empty, or what was being written when the process died: nobody was told of it
  lines.forEach((line) => JSON.parse(line).forEach(apply));
  const oldest = Date.now() - KEEP_CLAIMS_MS;
  for (const [key, claim] of inbox) if (claim.at < oldest) inbox.delete(key);
  const kept = [...inbox.values(), ...labels.values()].map((change) => JSON.stringify([change]) + "\n");
  const fresh = `${JOURNAL}.new`;
  journal = fs.openSync(fresh, "w");
  write(kept.join(""));
  fs.renameSync(fresh, JOURNAL); // the descriptor stays with the file
  const folder = fs.openSync(path.dirname(JOURNAL), "r");
  fs.fsyncSync(folder);
  fs.closeSync(folder);
}

function write(text) {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length; ) done += fs.writeSync(journal, bytes, done);
  fs.fsyncSync(journal);
}

function commit(changes) {
  write(JSON.stringify(changes) + "\n");
  changes.forEach(apply);
}

// -- the rules of a participant

const UNDONE = { outcome: "failure", code: "undone" };
const NOTHING_TO_UNDO = { outcome: "success", code: "nothing-to-undo" };

// Nothing here waits, so no two orders are ever under way together.
function answerTo(type, body, key, compensates) {
  const earlier = inbox.get(key);
  if (earlier) return earlier.undone ? UNDONE : earlier.answer;
  const at = Date.now();
  if (compensates) {
    const action = inbox.get(compensates);
    if (!action || action.undone || action.answer.outcome !== "success") {
      const barrier = action ? [] : [{ key: compensates, at, undone: true }];
      commit([...barrier, { key, at, answer: NOTHING_TO_UNDO }]);
      return NOTHING_TO_UNDO;
    }
  }
  try {
    const { reply, changes } = handlers[type](body);
    const answer = { outcome: "success", ...reply };
    commit([{ key, at, answer }, ...changes]);
    return answer;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    const answer = { outcome: "failure", code: "label-refused", body: { reason: error.message } };
    commit([{ key, at, answer }]);
    return answer;
  }
}

async function take(channel, message) {
  if (journal === null) openJournal();
  const { type, correlationId, replyTo, messageId, headers = {} } = message.properties;
  let answer, body = null;
  try {
    body = read(type, message.content);
    answer = answerTo(type, body, headers["idempotency-key"] || `message:${messageId}`, headers.compensates);
  } catch (error) {
    if (error.syscall) throw error; // the disk: end, and begin again with what it holds
    answer = { outcome: "retry", code: error.name, body: { reason: error.message } };
  }
  if (replyTo) await reply(channel, replyTo, correlationId || messageId, answer, headers);
  if (body !== null) channel.ack(message);
  else channel.nack(message, false, false); // to the dead letters
}

function read(type, content) {
  if (!Object.hasOwn(handlers, type)) throw new TypeError(`nobody handles ${type}`);
  const body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  if (typeof body !== "object" || body === null) throw new SyntaxError("the body is no JSON object");
  return body;
}

function reply(channel, to, correlationId, { outcome, code, type, body }, { traceparent }) {
  const headers = { outcome, ...(code && { "error-code": code }), ...(traceparent && { traceparent }) };
  const options = { correlationId, type, headers, persistent: true, contentType: "application/json" };
  return new Promise((done, failed) =>
    channel.publish("", to, Buffer.from(JSON.stringify(body || {})), options, (error) => (error ? failed(error) : done()))
  );
}

async function main() {
  const connection = await amqp.connect(AMQP_URL);
  connection.on("close", () => process.exit(1)); // whoever runs it starts it again
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(`${QUEUE}.dead`, { durable: true, arguments: { "x-queue-type": "quorum" } });
  const options = {
    "x-queue-type": "quorum",
    "x-single-active-consumer": true, // one process per journal; another one stands by
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": `${QUEUE}.dead`,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
  };
  await channel.assertQueue(QUEUE, { durable: true, arguments: options });
  await channel.prefetch(50);
  let last = Promise.resolve(); // one after the other, in order
  const consumer = (message) => {
    if (message === null) process.exit(1); // the queue was deleted
    last = last.then(() => take(channel, message)).catch(fail);
  };
  await channel.consume(QUEUE, consumer);
  console.log(`printing labels from ${QUEUE}`);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

main().catch(fail);
