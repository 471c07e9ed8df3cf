package trail

import (
	"container/list"
	"sync"
)

// Cache holds the trails of open sessions in bounded memory, least recently
// used out first. A trail is in it only while nobody works on it. It is safe
// for concurrent use.
//
// A cached trail is whole only if this process handled every record of its
// partition since. Begin sees to that.
type Cache struct {
	maxBytes int

	mu         sync.Mutex
	bytes      int
	order      *list.List // of *entry, least recently used first
	partitions map[int]*partition
}

type partition struct {
	next   int64  // offset after the last record that was handled
	batch  *Batch // the one that began last
	trails map[Key]*list.Element
}

type entry struct {
	partition int
	key       Key
	trail     *Trail
	bytes     int
}

// NewCache makes a cache of about maxBytes.
func NewCache(maxBytes int) *Cache {
	return &Cache{maxBytes: maxBytes, order: list.New(), partitions: map[int]*partition{}}
}

// Batch is a batch of one partition at work.
type Batch struct {
	cache     *Cache
	partition *partition
	number    int
}

// Begin begins a batch of a partition. Where it is not the one that follows the
// last, somebody else may have handled records in between: the trails of the
// partition are dropped. A batch that is still at work, left over from before a
// rebalance, has no part in the cache any more.
func (c *Cache) Begin(number int, first int64) *Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.partitions[number]
	if p == nil {
		p = &partition{next: first, trails: map[Key]*list.Element{}}
		c.partitions[number] = p
	}
	if p.next != first {
		for _, el := range p.trails {
			c.remove(el)
		}
		p.next = first
	}
	p.batch = &Batch{c, p, number}
	return p.batch
}

// Take takes a trail out of the cache; nil where it is not held.
func (b *Batch) Take(key Key) *Trail {
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	el := b.partition.trails[key]
	if el == nil || b.partition.batch != b {
		return nil
	}
	b.cache.remove(el)
	return el.Value.(*entry).trail
}

// End puts trails in, after a batch that succeeded. The one that begins at next
// is the one that follows. A trail that is larger than the cache is not held:
// it is read again for every batch that touches it.
func (b *Batch) End(next int64, trails map[Key]*Trail) {
	c, p := b.cache, b.partition
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.batch != b {
		return
	}
	p.next = next
	for key, t := range trails {
		e := &entry{b.number, key, t, t.Bytes()}
		if e.bytes > c.maxBytes {
			continue
		}
		p.trails[key] = c.order.PushBack(e)
		c.bytes += e.bytes
	}
	for c.bytes > c.maxBytes {
		c.remove(c.order.Front())
	}
}

// Bytes is about what the cache holds.
func (c *Cache) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(c.bytes)
}

func (c *Cache) remove(el *list.Element) {
	e := c.order.Remove(el).(*entry)
	c.bytes -= e.bytes
	delete(c.partitions[e.partition].trails, e.key)
}
