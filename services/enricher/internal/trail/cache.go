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
// partition since. Follow sees to that.
type Cache struct {
	maxBytes int

	mu         sync.Mutex
	bytes      int
	order      *list.List // of *entry, least recently used first
	partitions map[int]*partition
}

type partition struct {
	next   int64 // offset after the last record that was handled
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

// Follow begins a batch of a partition. Where it is not the one that follows
// the last, somebody else may have handled records in between: the trails of
// the partition are dropped.
func (c *Cache) Follow(number int, first int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.partitions[number]
	if p != nil && p.next == first {
		return
	}
	if p != nil {
		for _, el := range p.trails {
			c.remove(el)
		}
	}
	c.partitions[number] = &partition{next: first, trails: map[Key]*list.Element{}}
}

// Take takes a trail out; nil where it is not held.
func (c *Cache) Take(number int, key Key) *Trail {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.partitions[number].trails[key]
	if el == nil {
		return nil
	}
	c.remove(el)
	return el.Value.(*entry).trail
}

// Put ends a batch that succeeded: it puts trails in, and the batch that begins
// at next is the one that follows. A trail of more than a quarter of the cache
// is not held.
func (c *Cache) Put(number int, next int64, trails map[Key]*Trail) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.partitions[number]
	p.next = next
	for key, t := range trails {
		e := &entry{number, key, t, t.Bytes()}
		if e.bytes > c.maxBytes/4 {
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
