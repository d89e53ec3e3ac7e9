// etcd-load writes to etcd through its own client library and says as JSON what came of it.
//
//	etcd-load status  -endpoints A,B,C
//	etcd-load load    -endpoints LEADER -clients N -conns N -seconds S -bytes N
//	etcd-load fill    -endpoints LEADER -count N -bytes N
//	etcd-load caught  -endpoints NEW -index I
//	etcd-load replace -endpoints LEADER -remove ID -name NAME -peer URL
//	etcd-load gap     -endpoints A,B,C -clients N     (a line on stdin: report and begin anew)
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
)

const keys = 10000

var (
	endpoints = flag.String("endpoints", "", "comma-separated")
	clients   = flag.Int("clients", 1, "goroutines")
	conns     = flag.Int("conns", 1, "connections that they share")
	seconds   = flag.Float64("seconds", 3, "of measuring")
	warm      = flag.Float64("warm", 0.5, "seconds before")
	bytes     = flag.Int("bytes", 256, "of a value")
	count     = flag.Int("count", 0, "keys to fill")
	index     = flag.Uint64("index", 0, "applied index to wait for")
	remove    = flag.String("remove", "", "hexadecimal id of the member to remove")
	name      = flag.String("name", "", "of the member to add")
	peer      = flag.String("peer", "", "peer URL of the member to add")
	timeout   = flag.Duration("timeout", 150*time.Millisecond, "of one attempt while leaders are killed")
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func say(value interface{}) {
	check(json.NewEncoder(os.Stdout).Encode(value))
}

func dial(endpoint string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{endpoint},
		DialTimeout: 5 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithBackoffMaxDelay(200 * time.Millisecond)},
	})
	check(err)
	return client
}

func valueOf(size int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	value := make([]byte, size)
	for i := range value {
		value[i] = alphabet[rand.Intn(len(alphabet))]
	}
	return string(value)
}

type member struct {
	Endpoint string `json:"endpoint"`
	Id       string `json:"id"`
	Leader   bool   `json:"leader"`
	HasOne   bool   `json:"hasLeader"`
	Applied  uint64 `json:"applied"`
	Bytes    int64  `json:"dbBytes"`
}

func statusOf(client *clientv3.Client, endpoint string) (member, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := client.Status(ctx, endpoint)
	if err != nil {
		return member{}, err
	}
	id := s.Header.MemberId
	return member{endpoint, strconv.FormatUint(id, 16), s.Leader == id, s.Leader != 0, s.RaftAppliedIndex, s.DbSize}, nil
}

func status(all []string) {
	found := []member{}
	for _, endpoint := range all {
		client := dial(endpoint)
		if one, err := statusOf(client, endpoint); err == nil {
			found = append(found, one)
		}
		client.Close()
	}
	say(found)
}

func load(endpoint string) {
	pool := make([]*clientv3.Client, *conns)
	for i := range pool {
		pool[i] = dial(endpoint)
		_, err := pool[i].Put(context.Background(), "warm", "warm")
		check(err)
	}
	value := valueOf(*bytes)
	begin := time.Now().Add(time.Duration(*warm * float64(time.Second)))
	end := begin.Add(time.Duration(*seconds * float64(time.Second)))
	took := make([][]time.Duration, *clients)
	failed := make([]int, *clients)
	var wait sync.WaitGroup
	for c := 0; c < *clients; c++ {
		wait.Add(1)
		go func(c int) {
			defer wait.Done()
			random := rand.New(rand.NewSource(int64(c)))
			client := pool[c%len(pool)]
			for now := time.Now(); now.Before(end); {
				_, err := client.Put(context.Background(), fmt.Sprintf("key-%08d", random.Intn(keys)), value)
				after := time.Now()
				if err != nil {
					failed[c]++
				} else if now.After(begin) && !after.After(end) {
					took[c] = append(took[c], after.Sub(now))
				}
				now = after
			}
		}(c)
	}
	wait.Wait()
	all, failures := []time.Duration{}, 0
	for c := range took {
		all = append(all, took[c]...)
		failures += failed[c]
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(share float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[int(float64(len(all)-1)*share)]) / float64(time.Millisecond)
	}
	say(map[string]interface{}{
		"perSecond": float64(len(all)) / *seconds,
		"p50Ms":     at(0.5),
		"p99Ms":     at(0.99),
		"failed":    failures,
	})
}

func fill(endpoint string) {
	client := dial(endpoint)
	work := make(chan int)
	var wait sync.WaitGroup
	for c := 0; c < 64; c++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range work {
				_, err := client.Put(context.Background(), fmt.Sprintf("fill-%08d", i), valueOf(*bytes))
				check(err)
			}
		}()
	}
	for i := 0; i < *count; i++ {
		work <- i
	}
	close(work)
	wait.Wait()
	say(map[string]int{"count": *count})
}

func caught(endpoint string) {
	client := dial(endpoint)
	for until := time.Now().Add(2 * time.Minute); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if one, err := statusOf(client, endpoint); err == nil && one.Applied >= *index {
			say(one)
			return
		}
	}
	log.Fatal("the new member did not catch up")
}

func replace(endpoint string) {
	client := dial(endpoint)
	id, err := strconv.ParseUint(*remove, 16, 64)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err = client.MemberRemove(ctx, id)
	check(err)
	// Refused while the others are not connected for long enough.
	for {
		_, err = client.MemberAdd(ctx, []string{*peer})
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			log.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	say(map[string]string{"name": *name})
}

// The longest time without an acknowledged write.
type gaps struct {
	sync.Mutex
	last    time.Time
	longest time.Duration
	acked   int
}

func (g *gaps) ack() {
	g.Lock()
	defer g.Unlock()
	now := time.Now()
	if gap := now.Sub(g.last); gap > g.longest {
		g.longest = gap
	}
	g.last = now
	g.acked++
}

func (g *gaps) report() {
	g.Lock()
	defer g.Unlock()
	if gap := time.Since(g.last); gap > g.longest {
		g.longest = gap
	}
	say(map[string]interface{}{"longestMs": float64(g.longest) / float64(time.Millisecond), "acked": g.acked})
	g.longest = 0
	g.acked = 0
}

func gap(all []string) {
	seen := &gaps{last: time.Now()}
	value := valueOf(*bytes)
	pool := make([]*clientv3.Client, len(all))
	for i := range all {
		pool[i] = dial(all[i])
	}
	for c := 0; c < *clients; c++ {
		go func(c int) {
			for turn := c; ; {
				ctx, cancel := context.WithTimeout(context.Background(), *timeout)
				_, err := pool[turn%len(pool)].Put(ctx, fmt.Sprintf("gap-%d", c), value)
				cancel()
				if err == nil {
					seen.ack()
					time.Sleep(2 * time.Millisecond)
				} else {
					turn++
				}
			}
		}(c)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		seen.report()
	}
}

func main() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(os.Stderr, os.Stderr, os.Stderr))
	verb := os.Args[1]
	check(flag.CommandLine.Parse(os.Args[2:]))
	all := strings.Split(*endpoints, ",")
	switch verb {
	case "status":
		status(all)
	case "load":
		load(all[0])
	case "fill":
		fill(all[0])
	case "caught":
		caught(all[0])
	case "replace":
		replace(all[0])
	case "gap":
		gap(all)
	default:
		log.Fatal("unknown verb " + verb)
	}
}
