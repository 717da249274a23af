package itb.benchmarks;

import com.sun.management.OperatingSystemMXBean;
import io.github.linuxforhealth.hl7.ConverterOptions;
import io.github.linuxforhealth.hl7.HL7ToFHIRConverter;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.Base64;

/**
 * A line in: seconds to convert for, and a message (Base64). A line out: conversions, the nanoseconds that this
 * process has spent on a processor for them, and the result (Base64).
 */
public final class Convert {
  private static final OperatingSystemMXBean CPU =
      (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

  private Convert() {}

  public static void main(String[] args) throws Exception {
    PrintStream out = System.out;
    System.setOut(System.err); // the converter logs to standard output
    HL7ToFHIRConverter converter = new HL7ToFHIRConverter();
    ConverterOptions options = new ConverterOptions.Builder().build();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String[] parts = line.split(" ");
      long until = System.nanoTime() + (long) (Double.parseDouble(parts[0]) * 1e9);
      String text = new String(Base64.getDecoder().decode(parts[1]), StandardCharsets.UTF_8);
      long begun = CPU.getProcessCpuTime();
      int done = 0;
      String made = "";
      do {
        made = converter.convert(text, options);
        done++;
      } while (System.nanoTime() < until);
      long took = CPU.getProcessCpuTime() - begun;
      byte[] bytes = made.getBytes(StandardCharsets.UTF_8);
      out.println(done + " " + took + " " + Base64.getEncoder().encodeToString(bytes));
      out.flush();
    }
  }
}
