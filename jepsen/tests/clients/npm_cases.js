// What the package `etcd3` 1.1.2 of npm does, one case for each test that its authors have for it: the package carries none.
// Groups and cases have the names of theirs; what is done in them is written here. Run by mocha, with a server on the default port.
'use strict';

const assert = require('assert/strict');
const net = require('net');
const { once } = require('events');
const { Etcd3, EtcdLeaseInvalidError, EtcdLockFailedError, Range, STMConflictError } = require('etcd3');

const PREFIX = Range.prefix('allowed/');
const ADDRESS = '127.0.0.1:2379';
const KEYS = { foo1: 'bar1', foo2: 'bar2', foo3: '{"value":"bar3"}', baz: 'bar5' };

let client;

beforeEach(async () => {
  client = new Etcd3({ hosts: ADDRESS });
  await client.delete().all();
  for (const [key, value] of Object.entries(KEYS)) await client.put(key).value(value);
});

afterEach(async () => {
  await client.delete().all();
  client.close();
});

// Waits until the condition holds; mocha's own time limit ends the wait.
async function until(condition) {
  while (!(await condition())) await new Promise(resolve => setTimeout(resolve, 5));
}

// Whether an error is of that class, which the package does not always export.
const named = name => error => error.constructor.name === name;

// A user with a role for some keys, and the server looking at users.
const role = () => client.role('special');
const user = () => client.user('connor');
const known = password => new Etcd3({ hosts: ADDRESS, auth: { username: 'connor', password } });

async function enableUsers() {
  const administrator = new Etcd3({ hosts: ADDRESS, auth: { username: 'root', password: 'root' } });
  await client.role('root').create();
  const root = await client.user('root').create('root');
  await root.addRole('root');
  await role().create();
  await role().grant({ permission: 'Readwrite', range: PREFIX });
  await user().create('password');
  await user().addRole('special');
  await client.auth.authEnable();
  return administrator;
}

async function disableUsers(administrator) {
  await administrator.auth.authDisable();
  administrator.close();
  await client.user('root').delete();
  await client.role('root').delete();
}

async function removeSpecial() {
  for (const one of [role(), user()]) await one.delete().catch(() => undefined);
}

// Passes connections on to the server, can cut them, and can hold back what the server sends.
class Proxy {
  async open() {
    this.sockets = new Set();
    this.answers = [];
    this.server = net.createServer(socket => {
      const server = net.connect(2379, '127.0.0.1');
      this.answers.push([server, socket]);
      for (const end of [socket, server]) {
        this.sockets.add(end);
        end.on('error', () => undefined);
        end.on('close', () => [socket, server].forEach(other => other.destroy()));
      }
      socket.pipe(server).pipe(socket);
    });
    await new Promise(resolve => this.server.listen(this.port || 0, '127.0.0.1', resolve));
    this.port = this.server.address().port;
    return `127.0.0.1:${this.port}`;
  }

  hold() {
    this.answers.forEach(([server, socket]) => server.unpipe(socket));
  }

  release() {
    this.answers.forEach(([server, socket]) => server.pipe(socket));
  }

  close() {
    this.server.close();
    this.sockets.forEach(socket => socket.destroy());
  }
}

describe('crud', () => {
  describe('get() / getAll()', () => {
    it('lists all values', async () => assert.deepEqual(await client.getAll().strings(), KEYS));

    it('gets single keys with various encoding', async () => {
      assert.equal(await client.get('foo1').string(), 'bar1');
      assert.deepEqual(await client.get('foo2').buffer(), Buffer.from('bar2'));
      assert.deepEqual(await client.get('foo3').json(), { value: 'bar3' });
      assert.equal(await client.get('missing').string(), null);
    });

    it('gets whether keys exist', async () => {
      assert.deepEqual([await client.get('foo1').exists(), await client.get('missing').exists()], [true, false]);
    });

    it('queries prefixes', async () => {
      const { baz, ...rest } = KEYS;
      assert.deepEqual(await client.getAll().prefix('fo').strings(), rest);
    });

    it('gets keys', async () => {
      const sorted = Object.keys(KEYS).sort();
      assert.deepEqual(await client.getAll().keys(), sorted);
      assert.deepEqual(await client.getAll().keyBuffers(), sorted.map(key => Buffer.from(key)));
    });

    it('counts', async () => assert.equal(await client.getAll().count(), 4));

    it('sorts', async () => {
      const first = order => client.getAll().prefix('foo').sort('Key', order).limit(2).keys();
      assert.deepEqual(await first('Ascend'), ['foo1', 'foo2']);
      assert.deepEqual(await first('Descend'), ['foo3', 'foo2']);
    });
  });

  describe('delete()', () => {
    it('deletes all', async () => {
      await client.delete().all();
      assert.equal(await client.getAll().count(), 0);
    });

    it('deletes prefix', async () => {
      await client.delete().prefix('foo');
      assert.deepEqual(await client.getAll().keys(), ['baz']);
    });

    it('gets previous', async () => {
      const [previous] = await client.delete().key('foo1').getPrevious();
      assert.deepEqual([previous.key.toString(), previous.value.toString()], ['foo1', 'bar1']);
    });

    describe('put()', () => {
      it('allows touching key revisions', async () => {
        const revision = async () => Number((await client.get('foo1').exec()).kvs[0].mod_revision);
        const before = await revision();
        await client.put('foo1').touch();
        assert.ok((await revision()) > before);
        assert.equal(await client.get('foo1'), 'bar1');
      });

      it('updates key values', async () => {
        await client.put('foo1').value('updated');
        assert.equal(await client.get('foo1').string(), 'updated');
      });

      it('includes previous values', async () => {
        const previous = await client.put('foo1').value('updated').getPrevious();
        assert.deepEqual([previous.key.toString(), previous.value.toString()], ['foo1', 'bar1']);
      });
    });
  });
});

describe('lease()', () => {
  let lease;

  afterEach(async () => {
    if (lease && !lease.revoked()) await lease.revoke();
    lease = undefined;
  });

  const leaseOf = async key => (await client.get(key).exec()).kvs[0].lease;

  it('throws if trying to use too short of a ttl, or an undefined ttl', () => {
    for (const ttl of [0, undefined]) assert.throws(() => client.lease(ttl), /at least 1 second/);
  });

  it('reports a loss and errors if the client is invalid', async () => {
    const nobody = new Etcd3({ hosts: '127.0.0.1:1' });
    lease = nobody.lease(1);
    const [lost] = await once(lease, 'lost');
    await assert.rejects(lease.grant(), error => error === lost);
    nobody.close();
  });

  it('provides basic lease lifecycle', async () => {
    lease = client.lease(100);
    await lease.put('leased').value('foo');
    assert.equal(await leaseOf('leased'), await lease.grant());
    await lease.revoke();
    assert.equal(await client.get('leased').buffer(), null);
  });

  it('attaches leases through transactions', async () => {
    lease = client.lease(100);
    const put = lease.put('leased').value('foo');
    assert.equal((await client.if('foo1', 'Value', '==', 'bar1').then(put).commit()).succeeded, true);
    assert.equal(await leaseOf('leased'), await lease.grant());
    await lease.revoke();
    assert.equal(await client.get('leased').buffer(), null);
  });

  it('runs immediate keepalives', async () => {
    lease = client.lease(100);
    for (let round = 0; round < 2; round++) {
      const renewed = await lease.keepaliveOnce();
      assert.deepEqual([renewed.ID, renewed.TTL], [await lease.grant(), '100']);
    }
  });

  it('is resilient to network interruptions', async () => {
    const proxy = new Proxy();
    const proxied = new Etcd3({ hosts: await proxy.open() });
    lease = proxied.lease(3);
    await once(lease, 'keepaliveSucceeded');
    proxy.close();
    await once(lease, 'keepaliveFailed');
    await proxy.open();
    await once(lease, 'keepaliveSucceeded');
    await lease.revoke();
    proxied.close();
    proxy.close();
  });

  it('marks leases as failed if the server is not contacted for a while', async () => {
    const proxy = new Proxy();
    const proxied = new Etcd3({ hosts: await proxy.open() });
    lease = proxied.lease(1);
    await lease.grant();
    proxy.close();
    const [lost] = await once(lease, 'lost');
    assert.match(lost.message, /our lease has expired/);
    proxied.close();
  });

  it('emits a lost event if the lease is invalidated', async () => {
    lease = client.lease(100);
    let lost;
    lease.on('lost', error => (lost = error));
    await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
    await assert.rejects(lease.keepaliveOnce(), EtcdLeaseInvalidError);
    assert.ok(lost instanceof EtcdLeaseInvalidError && lease.revoked());
  });

  it('emits a loss if the touched key is lost', async () => {
    lease = client.lease(10);
    await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
    const lost = once(lease, 'lost');
    await assert.rejects(lease.put('foo').value('bar').exec(), EtcdLeaseInvalidError);
    assert.ok((await lost)[0] instanceof EtcdLeaseInvalidError && lease.revoked());
  });

  it('allows disabling auto keep alives', async () => {
    lease = client.lease(2, { autoKeepAlive: false });
    let fired = false;
    lease.on('keepaliveFired', () => (fired = true));
    await lease.put('leased').value('foo');
    await until(async () => !(await client.get('leased').exists()));
    assert.equal(fired, false);
  });

  describe('crons', () => {
    it('touches the lease ttl at the correct interval', async () => {
      lease = client.lease(3);
      await once(lease, 'keepaliveEstablished');
      const began = Date.now();
      await once(lease, 'keepaliveFired');
      assert.ok(Date.now() - began >= 900, 'after a third of its life, and not at once');
      const [renewed] = await once(lease, 'keepaliveSucceeded');
      assert.equal(renewed.TTL, '3');
    });

    it('stops touching the lease if released passively', async () => {
      lease = client.lease(2);
      await lease.put('leased').value('foo');
      lease.release();
      await until(async () => !(await client.get('leased').exists()));
    });

    it('marks leases as failed if etcd does not respond to keepalives in time (#110)', async () => {
      const proxy = new Proxy();
      const proxied = new Etcd3({ hosts: await proxy.open() });
      lease = proxied.lease(2);
      await once(lease, 'keepaliveSucceeded');
      proxy.hold();
      const began = Date.now();
      const [failed] = await once(lease, 'keepaliveFailed');
      assert.match(failed.message, /timed out/);
      assert.ok(Date.now() - began >= 1_500, 'after its whole life, and not at once');
      proxy.release();
      await lease.revoke();
      proxied.close();
      proxy.close();
    });

    it('tears down if the lease gets revoked', async () => {
      lease = client.lease(3);
      await once(lease, 'keepaliveEstablished');
      // A renewal that is on its way may hear of the end before the revocation is answered.
      const losing = once(lease, 'lost');
      await client.leaseClient.leaseRevoke({ ID: await lease.grant() });
      const [lost] = await losing;
      assert.ok(lost instanceof EtcdLeaseInvalidError && lease.revoked());
    });
  });
});

describe('lock()', () => {
  const taken = () => assert.rejects(client.lock('resource').acquire(), EtcdLockFailedError);
  const free = async () => (await client.lock('resource').acquire()).release();

  it('locks exclusively around a resource', async () => {
    const lock = await client.lock('resource').acquire();
    await taken();
    await lock.release();
    await free();
  });

  it('provides locking around functions', async () => {
    await client.lock('resource').do(taken);
    await free();
  });

  it('allows setting lock TTL before acquiring', async () => {
    await (await client.lock('resource').ttl(10).acquire()).release();
  });

  it('disallows setting TTL while lock is acquired', async () => {
    const lock = await client.lock('resource').acquire();
    assert.throws(() => lock.ttl(10), /Cannot set a lock TTL/);
    await lock.release();
  });

  it('gets the lock lease ID', async () => {
    const lock = client.lock('resource');
    assert.equal(await lock.leaseId(), null);
    await lock.acquire();
    assert.equal((await client.get('resource').exec()).kvs[0].lease, await lock.leaseId());
    await lock.release();
  });
});

describe('election', () => {
  let election;
  let campaign;

  beforeEach(async () => {
    election = client.election('test-election', 1);
    campaign = await election.campaign('candidate').wait();
  });
  afterEach(() => campaign.resign());

  const standing = count =>
    until(async () => (await client.getAll().prefix('election').keys()).length === count);
  const change = async observer => (await once(observer, 'change'))[0];

  describe('campaign', () => {
    it('should wait for elected in campaign', async () => {
      const second = client.election('test-election', 1).campaign('candidate2');
      await standing(2);
      const third = client.election('test-election', 1).campaign('candidate3');
      await standing(3);
      const elected = [second.wait(), third.wait()];
      assert.equal(await election.leader(), 'candidate');
      await campaign.resign();
      await elected[0];
      assert.equal(await election.leader(), 'candidate2');
      await second.resign();
      await elected[1];
      assert.equal(await election.leader(), 'candidate3');
      await third.resign();
    });

    it('should proclaim initial value', async () => {
      assert.equal(await client.get(await campaign.getCampaignKey()), 'candidate');
    });
  });

  describe('proclaim', () => {
    const refused = () => assert.rejects(campaign.proclaim('new'), named('NotCampaigningError'));

    it('should update if campaign', async () => {
      await campaign.proclaim('new');
      assert.equal(await client.get(await campaign.getCampaignKey()), 'new');
    });

    it('should not update if resigned', async () => {
      await campaign.resign();
      await refused();
    });

    it('should not update key was tampered with', async () => {
      await client.delete().key(await campaign.getCampaignKey());
      await refused();
    });

    it('should proclaim changes during initial publish', async () => {
      await campaign.resign();
      campaign = election.campaign('old');
      const key = await campaign.getCampaignKey();
      await campaign.proclaim('new');
      assert.equal(await client.get(key).string(), 'new');
    });
  });

  describe('getLeader', () => {
    it('should return leader value', async () => assert.equal(await election.leader(), 'candidate'));

    it('return undefined no leader', async () => {
      await campaign.resign();
      assert.equal(await election.leader(), undefined);
    });
  });

  describe('observe', () => {
    it('emits when existing leader resigns and other in queue', async () => {
      const observer = await election.observe();
      assert.equal(observer.leader(), 'candidate');
      const second = client.election('test-election', 1).campaign('candidate2');
      await standing(2);
      const [leader] = await Promise.all([change(observer), campaign.resign()]);
      assert.equal(leader, 'candidate2');
      await observer.cancel();
      await second.resign();
    });

    it('emits when leader steps down', async () => {
      const observer = await election.observe();
      const [leader] = await Promise.all([change(observer), campaign.resign()]);
      assert.equal(leader, undefined);
      await observer.cancel();
    });

    it('emits when leader is newly elected', async () => {
      await campaign.resign();
      const observer = await election.observe();
      assert.equal(observer.leader(), undefined);
      const next = election.campaign('candidate');
      const [leader] = await Promise.all([change(observer), next.wait()]);
      assert.equal(leader, 'candidate');
      await next.resign();
      await observer.cancel();
    });
  });

  it('fixes #176', async () => {
    const observer = await election.observe();
    const second = client.election('test-election', 1).campaign('candidate2');
    await standing(2);
    const third = client.election('test-election', 1).campaign('candidate3');
    await standing(3);
    let elected = false;
    third.on('elected', () => (elected = true));
    await second.resign();
    // The watch of the third tells of the departure before that of this key.
    await client.put('after').value('1');
    await standing(2);
    assert.deepEqual([observer.leader(), await election.leader(), elected], ['candidate', 'candidate', false]);
    await third.resign();
    await observer.cancel();
  });
});

describe('namespacing', () => {
  let inside;
  beforeEach(() => (inside = client.namespace('user1/')));

  const same = async (key, value) => {
    assert.deepEqual([await inside.get(key), await client.get(`user1/${key}`)], [value, value]);
  };

  it('puts and gets values in the namespace', async () => {
    await inside.put('foo').value('');
    await same('foo', '');
    assert.deepEqual(await inside.getAll().strings(), { foo: '' });
  });

  it('deletes values in the namespace', async () => {
    for (const key of ['foo1', 'foo2']) await inside.put(key).value('');
    await inside.delete().key('foo1');
    assert.deepEqual(await inside.getAll().strings(), { foo2: '' });
    await inside.delete().all();
    assert.deepEqual(await inside.getAll().strings(), {});
    assert.equal(await client.getAll().count(), 4);
  });

  it('contains leases in the namespace', async () => {
    const lease = inside.lease(100);
    await lease.put('leased').value('');
    await same('leased', '');
    await lease.revoke();
  });

  it('contains locks in the namespace', async () => {
    const lock = await inside.lock('mylock').acquire();
    assert.ok((await inside.get('mylock').exists()) && (await client.get('user1/mylock').exists()));
    await lock.release();
  });

  it('runs a simple if', async () => {
    await inside.put('foo1').value('potatoes');
    await inside.if('foo1', 'Value', '==', 'potatoes').then(inside.put('foo1').value('tomatoes')).commit();
    await same('foo1', 'tomatoes');
  });
});

describe('transactions', () => {
  const put = value => client.put('foo1').value(value);

  it('runs a simple if', async () => {
    await client.if('foo1', 'Value', '==', 'bar1').then(put('bar2')).commit();
    assert.equal(await client.get('foo1'), 'bar2');
  });

  it('runs consequents', async () => {
    await client.if('foo1', 'Value', '==', 'bar1').then(put('bar2')).else(put('bar3')).commit();
    assert.equal(await client.get('foo1'), 'bar2');
  });

  it('runs multiple clauses and consequents', async () => {
    const both = client.if('foo1', 'Value', '==', 'bar1').and('foo2', 'Value', '==', 'other');
    const { responses } = await both.then(put('bar2')).else(put('bar3'), client.get('foo2')).commit();
    assert.equal(responses[1].response_range.kvs[0].value.toString(), 'bar2');
    assert.equal(await client.get('foo1'), 'bar3');
  });
});

describe('stm()', () => {
  for (const [name, prefix] of [['without namespace', ''], ['with namespace', 'ns/']]) {
    describe(name, () => {
      let inside;
      beforeEach(async () => {
        inside = client.namespace(prefix);
        for (const [key, value] of Object.entries(KEYS)) await inside.put(key).value(value);
      });

      const levels = { SerializableSnapshot: 0, Serializable: 1, RepeatableReads: 2, ReadCommitted: 3 };
      const once = (isolation, work) => inside.stm({ retries: 0, isolation }).transact(work);
      const retried = async (isolation, work) => {
        let tries = 0;
        await inside.stm({ isolation }).transact(transaction => work(transaction, ++tries));
        assert.equal(tries, 2);
      };

      it('executes empty transactions', async () => {
        assert.equal(await inside.stm().transact(() => 'foo'), 'foo');
      });

      it('aborts transactions on continous failure', async () => {
        const work = async transaction => {
          await transaction.get('foo1');
          await inside.put('foo1').value('lol');
        };
        await assert.rejects(inside.stm({ retries: 2 }).transact(work), STMConflictError);
      });

      for (const [level, isolation] of Object.entries(levels)) {
        describe(level, () => {
          it('runs transactions when all is good', async () => {
            await inside.stm({ isolation }).transact(async transaction => {
              const value = await transaction.get('foo1');
              await transaction.put('foo1').value(value.repeat(3));
              assert.equal(await inside.get('foo1'), 'bar1');
            });
            assert.equal(await inside.get('foo1'), 'bar1bar1bar1');
          });

          it('caches writes in memory (#1)', () =>
            once(isolation, async transaction => {
              await transaction.put('foo').value('some value');
              assert.equal(await transaction.get('foo').string(), 'some value');
            }));

          it('caches writes in memory (#2)', () =>
            once(isolation, async transaction => {
              assert.equal(await transaction.get('foo1').string(), 'bar1');
              await transaction.put('foo1').value('lol');
              assert.equal(await transaction.get('foo1').string(), 'lol');
            }));

          it('caches writes in memory (#3)', () =>
            once(isolation, async transaction => {
              await transaction.delete().key('foo1');
              assert.equal(await transaction.get('foo1').string(), null);
              await transaction.put('foo1').value('lol');
              assert.equal(await transaction.get('foo1').string(), 'lol');
            }));

          it('caches writes in memory (#4)', () =>
            once(isolation, async transaction => {
              await transaction.delete().prefix('foo');
              assert.equal(await transaction.get('foo2').string(), null);
            }));

          if (level !== 'ReadCommitted') {
            it('has repeatable reads on existing keys', () =>
              retried(isolation, async (transaction, tries) => {
                await transaction.get('foo1');
                if (tries === 1) await inside.put('foo1').value('lol');
              }));

            it('has repeatable reads on non-existent', () =>
              retried(isolation, async (transaction, tries) => {
                await transaction.get('missing');
                if (tries === 1) await inside.put('missing').value('lol');
              }));
          }

          if (level.startsWith('Serializable')) {
            it('caches reads in memory', async () => {
              const work = async transaction => {
                assert.equal(await transaction.get('foo1').string(), 'bar1');
                await inside.put('foo1').value('changed!');
                assert.equal(await transaction.get('foo1').string(), 'bar1');
              };
              await assert.rejects(once(isolation, work), STMConflictError);
            });
          }
        });
      }

      describe('SerializableSnapshot', () => {
        const isolation = levels.SerializableSnapshot;

        it('should deny writing ranges if keys are read', async () => {
          const work = async transaction => {
            await transaction.get('foo1').string();
            await transaction.delete().prefix('foo');
          };
          await assert.rejects(once(isolation, work), /You cannot delete ranges/);
        });

        it('retries writes on conflicts', async () => {
          await retried(isolation, async (transaction, tries) => {
            const value = await transaction.get('foo1');
            if (tries === 1) await inside.put('foo1').value('lol');
            await transaction.put('foo1').value(value.repeat(3));
          });
          assert.equal(await inside.get('foo1'), 'lollollol');
        });

        it('retries deletes on conflicts', async () => {
          await retried(isolation, async (transaction, tries) => {
            await transaction.get('foo1');
            if (tries === 1) await inside.put('foo1').value('lol');
            await transaction.delete().key('foo1');
          });
          assert.equal(await inside.get('foo1'), null);
        });
      });
    });
  }
});

describe('watch()', () => {
  const told = async (watcher, key) => {
    const event = once(watcher, 'put');
    await client.put(key).value('updated!');
    const [put] = await event;
    assert.deepEqual([put.key.toString(), put.value.toString()], [key, 'updated!']);
  };

  describe('network interruptions', () => {
    it('caps watchers revisions', async () => {
      const proxy = new Proxy();
      const proxied = new Etcd3({ hosts: await proxy.open() });
      const watcher = await proxied.watch().key('foo1').create();
      const interrupted = once(watcher, 'disconnected');
      proxy.close();
      await interrupted;
      const actual = Number(watcher.request.start_revision);
      watcher.request.start_revision = 999999;
      const again = once(watcher, 'connected');
      await proxy.open();
      await again;
      assert.equal(Number(watcher.request.start_revision), actual);
      proxied.close();
      proxy.close();
    });

    describe('emits an error if a watcher is cancelled upon creation (#114)', () => {
      let administrator;

      beforeEach(async () => (administrator = await enableUsers()));

      afterEach(async () => {
        await disableUsers(administrator);
        await removeSpecial();
      });

      it('is fixed', async () => {
        const special = known('password');
        await assert.rejects(special.watch().key('elsewhere').create(), named('EtcdPermissionDeniedError'));
        special.close();
      });
    });
  });

  describe('subscription', () => {
    it('subscribes before the connection is established', async () => {
      await told(await client.watch().key('foo1').create(), 'foo1');
    });

    it('subscribes while the connection is still being established', async () => {
      const watchers = await Promise.all(['foo1', 'bar'].map(key => client.watch().key(key).create()));
      await Promise.all([told(watchers[0], 'foo1'), told(watchers[1], 'bar')]);
    });

    it('subscribes in series', async () => {
      const events = [];
      const watchers = ['foo1', 'bar'].map(key => client.watch().key(key).watcher());
      watchers.forEach((watcher, at) => {
        for (const event of ['connecting', 'connected']) watcher.on(event, () => events.push(`${event}${at + 1}`));
      });
      await once(watchers[1], 'connected');
      assert.deepEqual(events, ['connecting1', 'connected1', 'connecting2', 'connected2']);
    });

    it('subscribes after the connection is fully established', async () => {
      const first = await client.watch().key('foo1').create();
      await told(first, 'foo1');
      await told(await client.watch().key('bar').create(), 'bar');
      await told(first, 'foo1');
    });

    it('allows successive resubscription (issue #51)', async () => {
      for (let round = 0; round < 2; round++) {
        const watcher = await client.watch().key('foo1').create();
        await told(watcher, 'foo1');
        await watcher.cancel();
      }
    });
  });

  describe('unsubscribing', () => {
    it('unsubscribes while the connection is established', async () => {
      const watcher = await client.watch().key('foo1').create();
      let heard = false;
      watcher.on('put', () => (heard = true));
      await watcher.cancel();
      // Another watch is told of a later change first, if the cancelled one is told of anything.
      const other = await client.watch().key('foo1').create();
      await told(other, 'foo1');
      assert.equal(heard, false);
    });

    it('unsubscribes while the connection is being reestablished', async () => {
      const proxy = new Proxy();
      const proxied = new Etcd3({ hosts: await proxy.open() });
      const watcher = await proxied.watch().key('foo1').create();
      proxy.close();
      await watcher.cancel();
      await proxy.open();
      proxied.close();
      proxy.close();
    });
  });
});

describe('roles and auth', () => {
  afterEach(removeSpecial);

  describe('management', () => {
    it('create and deletes', async () => {
      await role().create();
      assert.deepEqual((await client.getRoles()).map(known => known.name), ['special']);
      await role().delete();
      assert.deepEqual(await client.getRoles(), []);
    });

    it('throws on existing roles', async () => {
      await role().create();
      await assert.rejects(role().create(), named('EtcdRoleExistsError'));
    });

    it('throws on deleting a non-existent role', () => assert.rejects(role().delete(), named('EtcdRoleNotFoundError')));

    it('round trips permission grants', async () => {
      await role().create();
      await role().grant({ permission: 'Read', range: PREFIX });
      const [permission] = await role().permissions();
      assert.deepEqual([permission.permission, permission.range.start.toString()], ['Read', 'allowed/']);
      await role().revoke(permission);
      assert.deepEqual(await role().permissions(), []);
    });

    it('throws on granting permission to a non-existent role', async () => {
      const permission = { permission: 'Read', key: 'foo' };
      await assert.rejects(role().grant(permission), named('EtcdRoleNotFoundError'));
    });
  });

  describe('users', () => {
    it('creates users', async () => {
      await user().create('password');
      assert.deepEqual((await client.getUsers()).map(known => known.name), ['connor']);
    });

    it('throws on existing users', async () => {
      await user().create('password');
      await assert.rejects(user().create('password'), named('EtcdUserExistsError'));
    });

    it('throws on deleting a non-existent user', () => assert.rejects(user().delete(), named('EtcdUserNotFoundError')));

    it('throws on granting a non-existent role', async () => {
      await user().create('password');
      await assert.rejects(user().addRole('nothing'), named('EtcdRoleNotFoundError'));
    });

    it('throws on regranting the same role multiple times', async () => {
      await user().create('password');
      await role().create();
      await assert.rejects(user().removeRole('special'), named('EtcdRoleNotGrantedError'));
    });

    it('round trips roles', async () => {
      await user().create('password');
      await role().create();
      await user().addRole('special');
      assert.deepEqual((await user().roles()).map(known => known.name), ['special']);
      await user().removeRole('special');
      assert.deepEqual(await user().roles(), []);
    });
  });

  describe('password auth', () => {
    let special;
    let administrator;

    beforeEach(async () => (administrator = await enableUsers()));

    afterEach(async () => {
      if (special) special.close();
      await disableUsers(administrator);
    });

    it('allows authentication using the correct credentials', async () => {
      special = known('password');
      await special.put('allowed/key').value('v');
      assert.equal(await special.get('allowed/key'), 'v');
    });

    it('rejects modifying a key the client has no access to', async () => {
      special = known('password');
      await assert.rejects(special.put('elsewhere').value('v').exec(), named('EtcdPermissionDeniedError'));
    });

    it('throws when using incorrect credentials', async () => {
      special = known('wrong');
      await assert.rejects(special.put('allowed/key').value('v').exec(), named('EtcdAuthenticationFailedError'));
    });

    it('automatically retrieves a new token if the existing one is invalid', async () => {
      special = known('password');
      await special.put('allowed/key').value('v');
      // Tokens do not outlive this.
      await administrator.auth.authDisable();
      await client.auth.authEnable();
      assert.equal(await special.get('allowed/key'), 'v');
    });
  });
});
