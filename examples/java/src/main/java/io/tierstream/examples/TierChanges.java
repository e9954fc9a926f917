package io.tierstream.examples;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Acts on every tier change exactly once, by the contract's one line: read committed, remember the
 * highest sequence per customer, ignore what is not above it, on a gap read the customer's state.
 *
 * <p>The effect is a line in a file: customer, sequence, data. The file is the memory, too, so that
 * "done" and "how far" are one write. It serves one process; several need a shared memory, because
 * partitions move between them.
 */
public final class TierChanges {
  public static void main(String[] args) throws Exception {
    if (args.length != 4) {
      System.err.println("usage: TierChanges BROKERS TOPIC GROUP FILE");
      System.exit(2);
    }
    Properties config = new Properties();
    config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
    config.put(ConsumerConfig.GROUP_ID_CONFIG, args[2]);
    // A restarted process takes its partitions back at once, without waiting for a session to end.
    config.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, args[2] + "-1");
    // The default is read_uncommitted: changes that are not certain, and some twice.
    config.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, "false");

    try (Ledger ledger = new Ledger(Path.of(args[3]));
        KafkaConsumer<byte[], byte[]> consumer =
            new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
      Thread main = Thread.currentThread();
      Runtime.getRuntime()
          .addShutdownHook(
              new Thread(
                  () -> {
                    consumer.wakeup();
                    try {
                      main.join();
                    } catch (InterruptedException e) {
                      Thread.currentThread().interrupt();
                    }
                  }));
      consumer.subscribe(List.of(args[1]));
      while (true) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(500));
        for (ConsumerRecord<byte[], byte[]> record : records) {
          ledger.take(record);
        }
        if (!records.isEmpty()) {
          consumer.commitSync(); // after the effect: a crash before this delivers again
        }
      }
    } catch (WakeupException e) {
      // Asked to stop. What was read and not committed will be delivered again, and ignored.
    }
  }

  /** What was done, and by it how far each customer is. */
  private static final class Ledger implements AutoCloseable {
    private final Map<String, Long> highest = new HashMap<>();
    private final RandomAccessFile file;

    Ledger(Path path) throws IOException {
      file = new RandomAccessFile(path.toFile(), "rw");
      byte[] all = new byte[Math.toIntExact(file.length())];
      file.readFully(all);
      int whole = 0; // a last line without its end was never finished
      for (int i = 0; i < all.length; i++) {
        if (all[i] == '\n') {
          String[] line = new String(all, whole, i - whole, StandardCharsets.UTF_8).split("\t", 3);
          highest.put(line[0], Long.parseLong(line[1]));
          whole = i + 1;
        }
      }
      file.setLength(whole);
      file.seek(whole);
    }

    void take(ConsumerRecord<byte[], byte[]> record) throws IOException {
      String customer = header(record, "ce_subject");
      long sequence = Long.parseLong(header(record, "ce_customerseq"));
      long before = highest.getOrDefault(customer, 0L);
      if (sequence <= before) {
        return; // delivered again
      }
      if (sequence > before + 1) {
        // This change says the customer's tier all the same. What came between is in the
        // customer's state: tierctl customer ID --json.
        System.err.printf("gap: customer %s goes from %d to %d%n", customer, before, sequence);
      }
      String data = new String(record.value(), StandardCharsets.UTF_8); // JSON, without line ends
      file.write((customer + "\t" + sequence + "\t" + data + "\n").getBytes(StandardCharsets.UTF_8));
      highest.put(customer, sequence);
    }

    private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
      Header h = record.headers().lastHeader(name);
      if (h == null) {
        throw new IllegalStateException(
            record.topic() + "/" + record.partition() + "@" + record.offset() + " has no header " + name);
      }
      return new String(h.value(), StandardCharsets.UTF_8);
    }

    @Override
    public void close() throws IOException {
      file.close();
    }
  }
}
